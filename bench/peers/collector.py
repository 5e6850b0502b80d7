"""An OTLP/HTTP endpoint that answers 200 to everything and keeps nothing; prints its port."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Accept(BaseHTTPRequestHandler):
    """Reads and forgets."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:  # noqa: D102 -- the base class's contract
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:  # noqa: D102
        return


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Accept)
    print(server.server_address[1], flush=True)
    server.serve_forever()
