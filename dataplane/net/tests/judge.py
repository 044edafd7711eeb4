"""Judges segments with scapy: each is what scapy builds from its fields, and together they carry the frame's payload.

usage: judge.py FRAMES SEGMENTS    capture files; a frame and its segments have the same time
"""

import logging
import sys

logging.getLogger("scapy").setLevel(logging.ERROR)

from scapy.all import IP, TCP, UDP, Ether, IPv6, IPv6ExtHdrFragment, defragment, rdpcap

sys.setrecursionlimit(10000)


def rebuilt(packet):
    """The packet with every length and checksum computed anew."""
    packet = packet.copy()
    for layer, fields in ((IP, ("len", "chksum")), (IPv6, ("plen",)), (TCP, ("chksum",)), (UDP, ("len", "chksum"))):
        if packet.haslayer(layer):
            for field in fields:
                packet[layer].delfieldval(field)
    return bytes(packet)


def payload(packet):
    return bytes(packet[TCP].payload if packet.haslayer(TCP) else packet[UDP].payload)


def joined(segments):
    """What the fragments carry. (scapy's defragment6 loses its way behind extension headers.)"""
    datagram = b""
    for packet in segments:
        fragment = packet[IPv6ExtHdrFragment]
        assert fragment.offset * 8 == len(datagram), "a fragment's offset is wrong"
        assert fragment.m == (packet is not segments[-1]), "a fragment's M flag is wrong"
        assert fragment.id == segments[0][IPv6ExtHdrFragment].id, "fragments have different ids"
        datagram += bytes(fragment.payload)
    return datagram


def without_fragment_header(packet, datagram):
    fragment = packet[IPv6ExtHdrFragment]
    packet = packet.copy()
    packet[IPv6ExtHdrFragment].underlayer.nh = fragment.nh
    packet[IPv6ExtHdrFragment].underlayer.remove_payload()
    packet[IPv6].plen = len(packet[IPv6].payload) + len(datagram)
    return Ether(bytes(packet) + datagram)


def whole(segments):
    """Their payload, put together as a receiver does."""
    first = segments[0]
    if first.haslayer(IPv6ExtHdrFragment):
        return [without_fragment_header(first, joined(segments))]
    if first.haslayer(IP) and (first[IP].flags.MF or first[IP].frag):
        return list(defragment([packet[IP] for packet in segments]))
    return segments


def judge(frame, segments):
    fragments = len(segments) > len(whole(segments))
    for packet in segments if not fragments else whole(segments):
        assert rebuilt(packet) == bytes(packet), "a length or checksum is wrong"
    if fragments:
        for packet in segments:
            if packet.haslayer(IP):
                good = packet.copy()
                good[IP].delfieldval("chksum")
                assert bytes(good) == bytes(packet), "a header checksum is wrong"
    expected, at = payload(frame), 0
    for packet in whole(segments):
        if frame.haslayer(TCP):
            assert (packet[TCP].seq - frame[TCP].seq) % (1 << 32) == at, "a sequence number is wrong"
        part = payload(packet)
        assert part == expected[at : at + len(part)], "the payload is another"
        at += len(part)
    assert at == len(expected), f"{at} bytes of {len(expected)}"


def main():
    by_time = {}
    for packet in rdpcap(sys.argv[2]):
        by_time.setdefault(int(packet.time), []).append(Ether(bytes(packet)))
    count = 0
    for frame in rdpcap(sys.argv[1]):
        segments = by_time.pop(int(frame.time))
        try:
            judge(frame, segments)
        except AssertionError as error:
            sys.exit(f"{frame.summary()}, {len(segments)} segments: {error}")
        count += len(segments)
    assert not by_time
    print(count)


main()
