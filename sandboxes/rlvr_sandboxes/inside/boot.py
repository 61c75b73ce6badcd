"""The first program of a sandbox: takes the source of the others from the host, and hands over to the fork server.

It is sent as text (`python3 -s -c`), with one argument: the path of a unix socket to listen on, or `-` for stdin and
stdout.
"""

import json
import os
import socket
import sys
import types

sys.path[:] = [entry for entry in sys.path if entry]  # not the folder that it happens to start in
where = sys.argv[1]
listener = None
if where == "-":
    reader, writer = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
else:
    os.umask(0)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(where + ".new")
    listener.listen(1)
    os.rename(where + ".new", where)  # when it is there, it listens
    os.umask(0o022)
    link = listener.accept()[0]
    reader = writer = link.detach()


def take(size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(reader, size - len(data))
        if not more:
            sys.exit(0)
        data += more
    return data


setup = json.loads(take(int.from_bytes(take(4), "big")))
for path in ("rlvr_sandboxes", "rlvr_sandboxes.inside"):
    package = sys.modules[path] = types.ModuleType(path)
    package.__path__ = []
for name, source in setup["modules"]:
    module = sys.modules[path + "." + name] = types.ModuleType(path + "." + name)
    setattr(package, name, module)
    exec(compile(source, f"<rlvr {name}>", "exec"), module.__dict__)
if listener is not None and not setup["config"]["stay"]:
    listener.close()
    os.unlink(where)
    listener = None
package.zygote.main(reader, writer, setup["config"], listener)
