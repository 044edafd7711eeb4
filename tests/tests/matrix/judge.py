"""Judges with scapy what became of frames.

usage: judge.py DIRECTORY

DIRECTORY/sent.pcap      the frames, their checksums left to complete
DIRECTORY/arrived.pcap   what arrived; NAME.headers have the virtio-net header of each, 10 bytes
DIRECTORY/cells.json     {"exact": whether the headers have to be those sent, too; "cells": [what has to arrive, ...]},
                         in the order of sent.pcap: null (nothing is asked) or
                         "same":  the frame as it was sent, with that header
                         "plain": finished frames, with a header of zeroes
                         "cut":   finished frames
                         "long":  at least one frame with segments left to cut
                         "sums":  frames of which a checksum is left to complete, at most
                         "any":   whatever is right

Prints a JSON list, in the same order: null, or {"frames": so many, "left": what was left to do, "error": what is
wrong}.
"""

import json
import logging
import struct
import sys
from dataclasses import dataclass

logging.getLogger("scapy").setLevel(logging.ERROR)

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapReader

sys.setrecursionlimit(10000)

NEEDS_CSUM = 1
GSO = {"TCP4": 1, "UFO": 3, "TCP6": 4, "USO": 5}
LONGEST = 9000 + 14 + 4
FIN_PSH = 0x09


@dataclass
class Header:
    flags: int
    gso_type: int
    hdr_len: int
    gso_size: int
    csum_start: int
    csum_offset: int

    @staticmethod
    def of(raw):
        return Header(*struct.unpack("<BBHHHH", raw))


class Wrong(Exception):
    """What a cell did not stand."""


def check(right, why):
    if not right:
        raise Wrong(why)


def read(directory, name):
    """Frames, parsed, with their headers."""
    with open(f"{directory}/{name}.headers", "rb") as file:
        headers = file.read()
    frames = [frame for frame, _ in RawPcapReader(f"{directory}/{name}.pcap")]
    check(len(headers) == 10 * len(frames), "a header for each frame")
    return [(Header.of(headers[10 * n : 10 * n + 10]), Ether(frame)) for n, frame in enumerate(frames)]


def ip_of(packet):
    return packet.getlayer(IP) or packet.getlayer(IPv6)


def l4_of(packet):
    return packet.getlayer(TCP) or packet.getlayer(UDP)


def rebuilt(packet):
    """The packet as scapy builds it: with every length and checksum computed anew."""
    packet = packet.copy()
    for layer, fields in ((IP, ("len", "chksum")), (IPv6, ("plen",)), (TCP, ("chksum",)), (UDP, ("len", "chksum"))):
        if packet.haslayer(layer):
            for field in fields:
                packet[layer].delfieldval(field)
    return bytes(packet)


def summed(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def finished(header, packet):
    """The packet, its checksum completed as the header says. That has to be what its headers say, too."""
    raw = bytes(packet)
    if not header.flags & NEEDS_CSUM:
        return packet
    l4 = l4_of(packet)
    start, offset = len(raw) - len(bytes(l4)), 16 if packet.haslayer(TCP) else 6
    check(header.csum_start == start, f"csum_start {header.csum_start}, but the header is at {start}")
    check(header.csum_offset == offset, f"csum_offset {header.csum_offset}")
    value = ~summed(raw[start:]) & 0xFFFF
    if packet.haslayer(UDP):
        value = value or 0xFFFF
    raw = raw[: start + offset] + struct.pack("!H", value) + raw[start + offset + 2 :]
    return Ether(raw)


def check_long(header, packet, unit):
    """A frame whose segments are left to cut."""
    kind = ("TCP" + ("4" if packet.haslayer(IP) else "6")) if packet.haslayer(TCP) else "USO"
    check(header.flags & NEEDS_CSUM, "segments are left to cut, but no checksum")
    check(header.gso_type in (GSO[kind], GSO["UFO"] if kind == "USO" else None), f"gso_type {header.gso_type}")
    check(0 < header.gso_size <= unit, f"gso_size {header.gso_size}, at most {unit}")
    check(header.hdr_len <= len(packet), f"hdr_len {header.hdr_len}")
    check(len(l4_of(packet).payload) > header.gso_size, "nothing to cut")


def joined(fragments):
    """The datagram whose fragments these are, and that they are right."""
    datagram, first = b"", fragments[0]
    v6 = first.haslayer(IPv6ExtHdrFragment)
    for packet in fragments:
        layer, first_layer = [it[IPv6ExtHdrFragment] if v6 else it[IP] for it in (packet, first)]
        offset, more = (layer.offset, layer.m) if v6 else (layer.frag, layer.flags.MF)
        check(offset * 8 == len(datagram), f"a fragment's offset is {offset * 8}, not {len(datagram)}")
        check(bool(more) == (packet is not fragments[-1]), "a fragment says wrongly whether there are more")
        check(layer.id == first_layer.id, "fragments have different ids")
        good = packet.copy()
        for field in ("plen",) if v6 else ("len", "chksum"):
            ip_of(good).delfieldval(field)
        check(bytes(good) == bytes(packet), "a fragment's length or header checksum")
        check(len(packet) <= LONGEST, f"a fragment of {len(packet)} bytes")
        datagram += bytes(layer.payload)
    packet = first.copy()
    if v6:
        fragment = packet[IPv6ExtHdrFragment]
        fragment.underlayer.nh = fragment.nh
        fragment.underlayer.remove_payload()
        packet[IPv6].plen = len(packet[IPv6].payload) + len(datagram)
    else:
        packet[IP].remove_payload()
        packet[IP].flags.MF = False
        packet[IP].len = 20 + len(datagram)
        packet[IP].delfieldval("chksum")
    return Ether(bytes(packet) + datagram)


def is_fragment(packet):
    return packet.haslayer(IPv6ExtHdrFragment) or (packet.haslayer(IP) and (packet[IP].flags.MF or packet[IP].frag))


def expected(sent, number, at, part, last):
    """Segment `number` of the frame, with `part` of its payload, as scapy builds it."""
    packet = sent.copy()
    l4 = l4_of(packet)
    if packet.haslayer(IP):
        packet[IP].id = (packet[IP].id + number) & 0xFFFF
    if packet.haslayer(TCP):
        packet[TCP].seq = (packet[TCP].seq + at) & 0xFFFFFFFF
        packet[TCP].flags = int(l4.flags) if last else int(l4.flags) & ~FIN_PSH
    l4.remove_payload()
    l4.add_payload(part)
    return rebuilt(packet)


def check_payload(sent, packets, exact, unit):
    """In order, and each at its place, the packets carry what the frame does."""
    payload, at = bytes(l4_of(sent).payload), 0
    for number, packet in enumerate(packets):
        part = bytes(l4_of(packet).payload)
        if packet.haslayer(TCP):
            here = (packet[TCP].seq - sent[TCP].seq) & 0xFFFFFFFF
            if not exact and here < at:
                # The kernel has sent it again.
                check(part == payload[here : here + len(part)], f"other bytes again at {here}")
                continue
            check(here == at, f"sequence number of byte {here}, at {at}")
        check(part == payload[at : at + len(part)], f"the payload differs behind byte {at}")
        last = at + len(part) == len(payload)
        if exact:
            check(bytes(packet) == expected(sent, number, at, part, last), f"a header at byte {at}")
            full = last or unit == 0 or len(packets) == 1 or len(part) == unit
            check(full, f"a segment of {len(part)} bytes at {at}")
        at += len(part)
    check(at == len(payload), f"{at} bytes of {len(payload)} arrived")


def judge(want, exact, sent_header, sent, arrived):
    check(arrived, "nothing arrived")
    unit = sent_header.gso_size
    left = set()
    for header, packet in arrived:
        check(header.flags & ~3 == 0, f"flags {header.flags:#x}")
        if header.flags & NEEDS_CSUM:
            left.add("checksum")
        if header.gso_type:
            left.add("segments")
            check_long(header, packet, unit)
        else:
            check(len(packet) <= LONGEST, f"a frame of {len(packet)} bytes")
        if want == "same":
            fields = ("flags", "gso_type", "gso_size", "csum_start", "csum_offset")
            check(all(getattr(header, it) == getattr(sent_header, it) for it in fields), f"{header} for {sent_header}")
        if want == "plain":
            check(header == Header(0, 0, 0, 0, 0, 0), f"{header}")
    check(want != "cut" or not left, f"{left} are left to do")
    check(want != "sums" or "segments" not in left, "segments are left to cut")
    check(want != "long" or "segments" in left, "no segments were left to cut")
    check(want != "same" or len(arrived) == 1, f"{len(arrived)} frames")
    fragments = [packet for _, packet in arrived if is_fragment(packet)]
    if fragments:
        check(len(fragments) == len(arrived), "fragments and others")
        check(not left, "something is left to do with fragments")
        packets = [joined(fragments)]
    else:
        packets = [finished(header, packet) for header, packet in arrived]
    for packet in packets:
        check(rebuilt(packet) == bytes(packet), "a length or checksum is wrong")
    check_payload(sent, packets, exact, unit)
    return {"frames": len(arrived), "left": sorted(left), "error": None}


def main():
    directory = sys.argv[1]
    with open(f"{directory}/cells.json", encoding="ascii") as file:
        cells = json.load(file)
    by_source = {}
    for header, packet in read(directory, "arrived"):
        if l4_of(packet) or is_fragment(packet):
            by_source.setdefault(ip_of(packet).src, []).append((header, packet))
    verdicts = []
    for want, (header, sent) in zip(cells["cells"], read(directory, "sent"), strict=True):
        verdict = None
        if want:
            try:
                verdict = judge(want, cells["exact"], header, sent, by_source.get(ip_of(sent).src, []))
            except Wrong as why:
                verdict = {"frames": 0, "left": [], "error": str(why)}
        verdicts.append(verdict)
    print(json.dumps(verdicts))


main()
