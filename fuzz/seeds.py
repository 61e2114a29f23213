#!/usr/bin/env python3
"""usage: seeds.py DIRECTORY

Writes inputs for the fuzzing targets, below DIRECTORY/TARGET: of the recorded sessions with the real
server, tests/transcripts, and some of its own. How the targets read them is said at the heads of
fuzz/src.
"""
import base64, json, os, struct, sys, zlib

HERE = os.path.dirname(os.path.abspath(__file__))
SESSIONS = "dog-basic", "dog-errors", "dog-admin", "dog-geometry", "qemu", "tgt"
STEPS = 60
INODE, ATTR, BTREE = 1 << 63, 1 << 61, 1 << 60
READ, WRITE, CREATE, NODES = 0x02, 0x03, 0x01, 0x82
MAP = 4664


def unpack(text):
    return zlib.decompress(base64.b64decode(text)) if text else b""


def session(name):
    with open(f"{HERE}/../tests/transcripts/{name}.jsonl") as lines:
        for line in lines:
            x = json.loads(line)
            yield (x["conn"], bytes.fromhex(x["req"]), unpack(x["req_data"]),
                   bytes.fromhex(x["rsp"]), unpack(x["rsp_data"]))


def counted(data, most=600):
    data = data[:most].rstrip(b"\0")
    return struct.pack("<H", len(data)) + data


def lamb():
    """Each session as it was, one request after the other, and pipelined."""
    for name in SESSIONS:
        steps = []
        for conn, req, data, _, _ in session(name):
            step = req + (counted(data) if data else b"")
            steps.append((conn % 4, step))
        for at in range(0, min(len(steps), 3 * STEPS), STEPS):
            for how in 1, 0:
                tags = (bytes([conn << 3 | how << 5]) for conn, _ in steps[at:])
                some = b"".join(tag + step for tag, (_, step) in zip(tags, steps[at:at + STEPS]))
                yield b"\0" + some[:4000]
    vid = next(rsp[24:28] for _, req, _, rsp, _ in session("qemu") if req[1] == 0x11)
    new = next(req + counted(data) for _, req, data, _, _ in session("qemu") if req[1] == 0x11)
    oid = b"\0\0\0\0" + vid
    def request(opcode, flags, length, arm):
        return struct.pack("<BBHIII", 1, opcode, flags, 0, 0, length) + arm.ljust(32, b"\0")
    write = request(CREATE, 1, 4096, oid) + counted(b"abc")
    read = request(READ, 0, 4096, oid)
    entry = request(WRITE, 1, 4, b"\0\0\0\0" + vid[:3] + b"\x80" + b"\0" * 16
                    + struct.pack("<I", MAP)) + counted(vid)
    stop = struct.pack("<BBHIII", 0x0a, 0x85, 0, 0, 0, 0) + b"\0" * 32
    # Broken off, given up, ended in order, started again.
    for last in (b"\x04", b"\x05", b"\x06\x40\x00" + write, b"\x06\x10\x00" + read, b"\x07",
                 b"\x07" + b"\x00" + read, b"\x00" + stop, b"\x47" + b"\x00" + write):
        for flags in b"\0\x01\xc0":
            yield (bytes([flags]) + b"\x20" + new + b"\x00" + write + b"\x00" + entry
                   + b"\x08" + read + b"\x60" + read + last)


def maps():
    for name in SESSIONS:
        for _, req, data, rsp, back in session(name):
            opcode = req[1]
            oid, = struct.unpack_from("<Q", req, 16)
            offset, = struct.unpack_from("<I", req, 40)
            payload = back if opcode == READ else data if opcode in (WRITE, CREATE) else b""
            if opcode == NODES and back:
                yield b"\x04" + back[:400]
            if not payload:
                continue
            if oid & INODE and offset == 0 and len(payload) >= 572:
                yield b"\0" + payload[:572]
            if oid & ATTR and offset == 0:
                yield b"\x03" + payload[:900]
            for at in payload.find(b"tb\x01\0"), payload.find(b"tb\x02\0"):
                if at >= 0 and oid & (INODE | BTREE):
                    node = payload[at:at + 400].rstrip(b"\0")
                    yield b"\x01" + node
                    vid = struct.pack("<I", oid >> 32 & 0xffffff)
                    yield b"\x02" + vid + struct.pack("<H", len(node)) + node + bytes(range(64))
    empty = b"tb\x01\0\0\0\0\0"
    spread = bytes(byte for n in range(40) for byte in (0, n * 37 & 0xff, 7))
    yield b"\x02\x07\0\0\0" + struct.pack("<H", 8) + empty + spread
    children = b"tb\x02\0\x02\0\0\0" + b"".join(
        struct.pack("<IIQ", top, 0, BTREE | 7 << 32 | n) for top, n in ((9, 1), (99, 2)))
    leaves = b"tb\x01\0\x01\0\0\0" + struct.pack("<II", 5, 7)
    yield (b"\x02\x07\0\0\0" + struct.pack("<H", len(children)) + children
           + b"\0\x05\x07" + struct.pack("<H", len(leaves)) + leaves + b"\0\x06\x07\0\x10\x07")


def wire():
    def submit(kind, payload, room):
        return bytes([0, WRITE, kind]) + struct.pack("<HH", payload, room)
    send, receive = b"\x02\x07\xff\xff", b"\x04\xff\xff"
    answer = b"\x03\x00\x06" + struct.pack("<H", 100) + b"\0"
    for kind in range(12):
        yield submit(kind, 200, 100) + send + answer + receive + b"\x06\0"
        yield (submit(kind, 2000, 100) + b"\x02\x00" + struct.pack("<H", 300) + b"\x07\0"
               + submit(kind, 20, 7) + send + answer + b"\x04\x20\0" + b"\x04\x12\0" + b"\x0a"
               + receive)
        yield submit(kind, 9, 50) * 3 + b"\x08" + send + answer * 3 + receive + b"\x09\x06\1\x0b"


def address():
    for text in ("127.0.0.1", "127.0.0.1:7001,[::1]:7002", "::1", "[fe80::1%eth0]:7", "a.example:1",
                 "unix:/run/a", "sheepdog:", "sheepdog://a:1,[::1]:2/", "sheepdog+tcp:127.0.0.1:1",
                 "sheepdog+unix:/run/a%20b", "sheepdog+unix:///?socket=/run/a%20b", "unix:7001",
                 "sheepdog:7001", ", a", "h:+1", "sheepdog+unix:/a%xx"):
        yield text.encode()


def hostile():
    def call(kind, who=0, how=0, at=0, length=0, beside=False):
        return bytes([kind | beside << 7, who, how]) + struct.pack("<I", at)[:3] \
            + struct.pack("<H", length)
    create = call(0, 0, 4, 1 << 20)
    hyper = call(0, 8, 8, 1 << 20)
    opened = call(2, 0, 1)
    rw = call(8, 0, 0x40, 4096, 9000) + call(5, 0, 0x40, 4096, 9000)
    plays = {
        "io": create + opened + rw + call(11, 0, 0, 0, 40000) + call(12) + call(14) + call(16),
        "hyper": hyper + opened + rw + call(14) + call(16) + call(13, 0, 8, 1 << 21) + call(24),
        "snapshot": create + opened + rw + call(18, 0, 0) + rw + call(19, 0, 3) + call(5, 0, 0x40)
        + call(20) + call(22) + call(23, 0, 1) + call(21, 0, 3) + call(4) + call(24),
        "attr": create + call(25, 0, 0, 0, 100) + call(26, 0, 0, 0, 100) + call(27) + call(17),
        "beside": create + opened + b"".join(call(8, 0, 0x40, n << 16, 9000, True)
                                             for n in range(8)) + call(12) + call(17),
        "resize": create + opened + call(13, 0, 4, 1 << 21) + rw + call(13, 0, 4, 1 << 18)
        + call(15) + call(28) + call(29),
        "prealloc": call(0, 4 | 16, 16 | 4, 1 << 18) + opened + rw,
    }
    lies = [b"", b"\x80\x05", b"\x81\x08\x01", b"\x82\x20\x00\x04abcd", b"\x85\x10\x00",
            b"\x86\x01\0\0\0", b"\x87\x04\x00abcd\xff", b"\x88", b"\x89", b"\x8a\x00\x20",
            b"\x8b\x30\x00", b"\x8c", b"\x8d\x30\x00" + b"\x01" * 48, b"\x8e\x10\x00\x05", b"\x9f",
            b"\xcf", b"\x83\x28\x02\x08\xff\xff\xff\xff\xff\xff\xff\xff"]
    number = 0
    for play in plays.values():
        for lie in lies:
            # On answers sooner or later, of one server or two, with locks or without.
            number += 1
            first, after = (0, 0, 0x80, 0, 0x40)[number % 5], (0, 2, 5, 9, 14, 20, 28)[number % 7]
            head = bytes([first | len(play) // 8 - 1])
            yield head + play + bytes([after]) + lie + (b"\x03" + lie) * 3


for target in lamb, maps, wire, address, hostile:
    directory = f"{sys.argv[1]}/{target.__name__}"
    os.makedirs(directory, exist_ok=True)
    for number, seed in enumerate(dict.fromkeys(target())):
        with open(f"{directory}/{number:04}", "wb") as file:
            file.write(seed)
