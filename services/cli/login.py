"""`planier login`: signing in with the local identity provider."""

from typing import Annotated

import typer

from services.cli import session
from services.cli.app import JsonOption, app, perform
from services.cli.output import console, print_json
from services.cli.profile import Profile


@app.command()
def login(
    role: Annotated[str, typer.Option("--as", help="One of the local people, such as duty-officer, dga, auditor.")],
    as_json: JsonOption = False,
) -> None:
    """Sign in as one of the local identity provider's people; the session is kept for the next commands."""
    perform(_login(role, as_json=as_json), as_json=as_json)


async def _login(role: str, *, as_json: bool) -> None:
    signed_in = await session.sign_in(Profile.load(), role)
    if as_json:
        print_json({"subject": role, "binding": signed_in.binding, "expires_at": signed_in.expires_at.isoformat()})
        return
    console.print(f"signed in as [bold]{role}[/bold] (binding: {signed_in.binding.lower()})")
