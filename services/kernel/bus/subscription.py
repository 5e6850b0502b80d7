"""A reader's way to JetStream: an ephemeral consumer that is asked for a few messages at a time.

Pulling is the back-pressure: what a slow reader has not asked for waits on the server's disk, and is discarded there
at the bounds of the stream. Source: https://docs.nats.io/reference/reference-protocols/nats_api_reference
"""

import asyncio
import contextlib
import json
import logging
from uuid import uuid4

import nats.errors
from google.protobuf.message import DecodeError
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from planier.common.v1.event_pb2 import EventRun

from services.kernel.bus.base import BusUnavailable, SubscriptionLost, Topic
from services.kernel.bus.connection import Connection

logger = logging.getLogger(__name__)

# Messages asked for at a time, of at most 1 MiB; the next are asked for before these have run out, or a reader in step
# would wait a round trip every so often.
BATCH = 8
REQUEST_SECONDS = 30
# How often a lost connection is looked for; the server keeps an unused consumer for longer.
LOOK_SECONDS = 0.25
INACTIVE_SECONDS = 60.0
NANOSECONDS = 1_000_000_000
REQUEST_EXPIRED = "408"


class JetStreamSubscription:
    """Implements RunSubscription; make it with `subscribe`."""

    def __init__(
        self, connection: Connection, client: Client, *, topic: Topic, name: str, inbox: Subscription, lives: int
    ) -> None:
        self._connection = connection
        self._client = client
        self._topic = topic
        self._name = name
        self._inbox = inbox
        self._lives = lives
        self._asked = 0

    async def next(self, seconds: float) -> EventRun | None:
        """The next run, or None after so many seconds. Raises SubscriptionLost."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (left := deadline - loop.time()) > 0:
            if self._connection.disconnections != self._lives or not self._client.is_connected:
                raise SubscriptionLost("the connection was lost")
            try:
                if self._asked <= BATCH // 2:
                    await self._ask()
                message = await self._inbox.next_msg(timeout=min(left, LOOK_SECONDS))
            except TimeoutError:
                continue
            except nats.errors.Error as error:
                _heed_cancellation()
                raise SubscriptionLost("the connection was lost") from error
            headers = message.headers or {}
            status = headers.get("Status")
            if status == REQUEST_EXPIRED:
                self._asked -= min(self._asked, int(headers.get("Nats-Pending-Messages", self._asked)))
            elif status:
                raise SubscriptionLost("the consumer is gone")
            else:
                self._asked -= 1
                return _parse(message.data)
        return None

    async def _ask(self) -> None:
        request = {"batch": BATCH, "expires": REQUEST_SECONDS * NANOSECONDS}
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._topic.stream}.{self._name}"
        await self._client.publish(subject, json.dumps(request).encode(), reply=self._inbox.subject)
        self._asked += BATCH

    async def close(self) -> None:
        """Unsubscribes and deletes the consumer; never raises."""
        with contextlib.suppress(nats.errors.Error, TimeoutError):
            await self._inbox.unsubscribe()
        if self._client.is_connected:
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                await self._client.jetstream(timeout=1.0).delete_consumer(self._topic.stream, self._name)


def _heed_cancellation() -> None:
    """Raises CancelledError where nats-py put ConnectionClosedError in its place: a reader told to stop must stop."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _parse(data: bytes) -> EventRun:
    try:
        return EventRun.FromString(data)
    except DecodeError as error:
        raise SubscriptionLost("a message cannot be read") from error


async def subscribe(connection: Connection, topic: Topic) -> JetStreamSubscription:
    """Opens a subscription to what is published from now on. Raises BusUnavailable, also while there is no stream."""
    client = await connection.client()
    lives = connection.disconnections
    name = f"{connection.settings.service}-{uuid4().hex}"
    configuration = ConsumerConfig(
        name=name,
        deliver_policy=DeliverPolicy.NEW,
        ack_policy=AckPolicy.NONE,
        inactive_threshold=INACTIVE_SECONDS,
        mem_storage=True,
        num_replicas=1,
    )
    try:
        inbox = await client.subscribe(client.new_inbox())
        context = client.jetstream(timeout=connection.settings.request_timeout)
        try:
            await context.add_consumer(topic.stream, configuration)
        except BaseException:
            # Of a closed connection it raises, in the place of what is to be told: a cancellation for instance.
            with contextlib.suppress(nats.errors.Error):
                await inbox.unsubscribe()
            raise
    except (nats.errors.Error, TimeoutError) as error:
        raise BusUnavailable("the subscription could not be opened") from error
    return JetStreamSubscription(connection, client, topic=topic, name=name, inbox=inbox, lives=lives)
