"""Has the kernel's own stack send what is in frames: from the same addresses, the same payload.

usage: kernel_source.py DIRECTORY INTERFACE MAC NUMBER...

DIRECTORY/sent.pcap and .headers are the frames; those with a NUMBER (the first has 0) go out of INTERFACE, to MAC. A
header that asks for datagrams of a size makes it ask the kernel for them (UDP_SEGMENT); one that asks for fragments, a
datagram that is to be fragmented. TCP is not set up with anybody: TCP_REPAIR makes connections that both ends are said to
have agreed on.
"""

import fcntl
import logging
import socket
import struct
import subprocess
import sys
import time

logging.getLogger("scapy").setLevel(logging.ERROR)

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop
from scapy.layers.l2 import Dot1Q, Ether
from scapy.utils import RawPcapReader

# Of linux/tcp.h, linux/udp.h, linux/in6.h, linux/sockios.h.
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_REPAIR_OPTIONS, TCP_REPAIR_WINDOW = 19, 20, 21, 22, 29
TCP_RECV_QUEUE, TCP_SEND_QUEUE = 1, 2
TCP_REPAIR_OFF_NO_WP = -1
TCPOPT_TIMESTAMP = 8
UDP_SEGMENT = 103
IPV6_HOPOPTS, IPV6_DSTOPTS = 54, 59
SIOCOUTQNSD = 0x894B
GSO_UDP_L4 = 5
VLAN = 5
# What there is of TCP options in each segment.
TIMESTAMP = 12
MARK = bytes.fromhex("020000000002 020000000001 88b5") + bytes(46)


def ip_of(packet):
    return packet.getlayer(IP) or packet.getlayer(IPv6)


def prepare(interface, mac, frames):
    """Addresses, neighbours, and a congestion window for all of a frame."""
    tagged = f"{interface}.{VLAN}"
    lines = []
    if any(packet.haslayer(Dot1Q) for packet, _ in frames):
        lines += [f"link add link {interface} name {tagged} type vlan id {VLAN}", f"link set {tagged} up"]
    for packet, _ in frames:
        device = tagged if packet.haslayer(Dot1Q) else interface
        v4 = packet.haslayer(IP)
        source, to = ip_of(packet).src, ip_of(packet).dst
        lines.append(f"addr replace {source}/{'24' if v4 else '64 nodad'} dev {device}")
        lines.append(f"neigh replace {to} lladdr {mac} dev {device}")
        lines.append(f"route replace {to} dev {device} initcwnd 100")
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def make_socket(packet, kind):
    """A socket with the packet's addresses, and its IPv6 extension headers."""
    v4, l4 = packet.haslayer(IP), packet.getlayer(TCP) or packet.getlayer(UDP)
    sock = socket.socket(socket.AF_INET if v4 else socket.AF_INET6, kind)
    for layer, option in ((IPv6ExtHdrHopByHop, IPV6_HOPOPTS), (IPv6ExtHdrDestOpt, IPV6_DSTOPTS)):
        if packet.haslayer(layer):
            # One of 8 bytes, followed by padding.
            sock.setsockopt(socket.IPPROTO_IPV6, option, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
    return sock, (ip_of(packet).src, l4.sport), (ip_of(packet).dst, l4.dport)


def send_tcp(packet, gso_size):
    sock, here, there = make_socket(packet, socket.SOCK_STREAM)
    tcp = packet[TCP]

    def repair(option, value):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)

    repair(TCP_REPAIR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    repair(socket.TCP_NODELAY, 1)
    payload = bytes(tcp.payload)
    # IP options count, too; and no peer may ask for less than some 500 bytes.
    options = len(ip_of(packet)) - len(tcp) - (20 if packet.haslayer(IP) else 40)
    repair(socket.TCP_MAXSEG, max(536, (gso_size or len(payload)) + TIMESTAMP + options))
    for queue, sequence in ((TCP_RECV_QUEUE, tcp.ack), (TCP_SEND_QUEUE, tcp.seq)):
        repair(TCP_REPAIR_QUEUE, queue)
        repair(TCP_QUEUE_SEQ, struct.pack("I", sequence))
    sock.bind(here)
    sock.connect(there)
    repair(TCP_REPAIR_OPTIONS, struct.pack("II", TCPOPT_TIMESTAMP, 0))
    window = 1 << 20
    repair(TCP_REPAIR_WINDOW, struct.pack("5I", tcp.ack, window, window, 1 << 15, tcp.ack))
    repair(TCP_REPAIR, TCP_REPAIR_OFF_NO_WP)
    sock.sendall(payload)
    for _ in range(500):
        unsent = struct.unpack("i", fcntl.ioctl(sock, SIOCOUTQNSD, bytes(4)))[0]
        if unsent == 0:
            break
        time.sleep(0.01)
    assert unsent == 0, f"{unsent} bytes of {packet.summary()} are not sent"
    # Without a word to the other end, and before anything is sent again.
    repair(TCP_REPAIR, 1)
    sock.close()


def send_udp(packet, gso_type, gso_size):
    sock, here, there = make_socket(packet, socket.SOCK_DGRAM)
    if gso_type == GSO_UDP_L4:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, gso_size)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    sock.bind(here)
    sock.sendto(bytes(packet[UDP].payload), there)
    sock.close()


def main():
    directory, interface, mac, *numbers = sys.argv[1:]
    with open(f"{directory}/sent.headers", "rb") as file:
        headers = list(struct.iter_unpack("<BBHHHH", file.read()))
    packets = [Ether(frame) for frame, _ in RawPcapReader(f"{directory}/sent.pcap")]
    frames = [(packets[number], headers[number]) for number in map(int, numbers)]
    prepare(interface, mac, frames)
    for packet, (_, gso_type, _, gso_size, _, _) in frames:
        if packet.haslayer(TCP):
            send_tcp(packet, gso_size)
        else:
            send_udp(packet, gso_type, gso_size)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((interface, 0))
        raw.send(MARK)


main()
