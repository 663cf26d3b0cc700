"""A local stand-in for the hub: the few addresses that its client asks, over real HTTP, with real files."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories by path, such as ``datasets/org/name``: a folder each. Those of ``gated`` ask for a licence."""

    repositories: dict[str, Path]
    gated: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub on a port of 127.0.0.1 until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0].lstrip("/")
            hub.asked.append(f"{self.command} {path}")
            listed = re.fullmatch(r"api/(models/|datasets/)([^/]+/[^/]+)(/revision/[^/]+|/tree/[^/]+(?:/.+)?)?", path)
            file = re.fullmatch(r"(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            name = (listed[1].replace("models/", "") + listed[2]) if listed else ""
            name = ((file[1] or "") + file[2]) if file else name
            folder = hub.repositories.get(name)
            if folder is None:
                self.send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)
            elif listed:
                names = sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
                below = (listed[3] or "").split("/")[3:]
                if below and not folder.joinpath(*below).is_dir():
                    self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
                    return
                if (listed[3] or "").startswith("/tree"):
                    data: object = [
                        {"type": "file", "path": n, "size": (folder / n).stat().st_size, "oid": "0"} for n in names
                    ]
                else:
                    data = {"id": listed[2], "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}
                self.send(200, json.dumps(data).encode(), {"Content-Type": "application/json"}, body)
            elif name in hub.gated:
                self.send(403, b"", {"X-Error-Code": "GatedRepo"}, body)
            elif not (folder / file[4]).is_file():
                self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
            else:
                content = (folder / file[4]).read_bytes()
                digest = hashlib.sha256(content).hexdigest()
                self.send(200, content, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT}, body)

        def send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
