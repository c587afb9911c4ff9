"""A server of aiosmtpd that takes every message and drops it, for the benchmark.

usage: aiosmtpd_discard.py lmtp|smtp /path/of/socket
"""

import asyncio
import resource
import sys

from aiosmtpd.handlers import Sink
from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP


async def main(mode: str, path: str) -> None:
    kind = LMTP if mode == "lmtp" else SMTP
    server = await asyncio.get_running_loop().create_unix_server(
        lambda: kind(Sink(), hostname="mx.example.org", data_size_limit=64 << 20),
        path, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    asyncio.run(main(sys.argv[1], sys.argv[2]))
