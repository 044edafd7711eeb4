/* What Rust sees of DPDK.
 *
 * Layouts and constants that change between releases are taken from the installed headers here, so
 * that nothing on the Rust side copies them. Functions rw_* are in shim.c: static inlines, and calls
 * whose structures differ between releases. */
#ifndef RINGWIRE_DPDK_WRAPPER_H
#define RINGWIRE_DPDK_WRAPPER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rte_cycles.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* Byte offsets into struct rte_mbuf. */
enum rw_mbuf_offset {
	RW_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	RW_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	RW_MBUF_REFCNT = offsetof(struct rte_mbuf, refcnt),
	RW_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
	RW_MBUF_PORT = offsetof(struct rte_mbuf, port),
	RW_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
	RW_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	RW_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	RW_MBUF_VLAN_TCI = offsetof(struct rte_mbuf, vlan_tci),
	RW_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
	RW_MBUF_POOL = offsetof(struct rte_mbuf, pool),
	RW_MBUF_NEXT = offsetof(struct rte_mbuf, next),
	RW_MBUF_TX_OFFLOAD = offsetof(struct rte_mbuf, tx_offload),
	RW_MBUF_PACKET_TYPE = offsetof(struct rte_mbuf, packet_type),
};

/* DPDK's release, such as 2211 for 22.11. */
enum rw_version {
	RW_DPDK_RELEASE = RTE_VER_YEAR * 100 + RTE_VER_MONTH,
};

/* Bit positions inside rte_mbuf.tx_offload. */
enum rw_tx_offload_shift {
	RW_TX_L2_LEN_SHIFT = RTE_MBUF_L2_LEN_OFS,
	RW_TX_L3_LEN_SHIFT = RTE_MBUF_L3_LEN_OFS,
	RW_TX_L4_LEN_SHIFT = RTE_MBUF_L4_LEN_OFS,
	RW_TX_TSO_SEGSZ_SHIFT = RTE_MBUF_TSO_SEGSZ_OFS,
};

enum rw_limit {
	RW_PKTMBUF_HEADROOM = RTE_PKTMBUF_HEADROOM,
	RW_MEMPOOL_CACHE_MAX = RTE_MEMPOOL_CACHE_MAX_SIZE,
	RW_MEMPOOL_NAME_MAX = RTE_MEMPOOL_NAMESIZE,
	RW_MAX_LCORE = RTE_MAX_LCORE,
	RW_MAX_ETHPORTS = RTE_MAX_ETHPORTS,
	RW_ETH_NAME_MAX = RTE_ETH_NAME_MAX_LEN,
	RW_ETHER_OVERHEAD = RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN,
	RW_FALLBACK_RING_SIZE = RTE_ETH_DEV_FALLBACK_RX_RINGSIZE,
};

static const uint64_t RW_ETH_NO_OWNER = RTE_ETH_DEV_NO_OWNER;
static const uint32_t RW_LCORE_ID_ANY = LCORE_ID_ANY;

static const uint64_t RW_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t RW_RX_OFFLOAD_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t RW_RX_OFFLOAD_IPV4_CKSUM = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
static const uint64_t RW_RX_OFFLOAD_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t RW_RX_OFFLOAD_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t RW_RX_OFFLOAD_TCP_LRO = RTE_ETH_RX_OFFLOAD_TCP_LRO;
static const uint64_t RW_TX_OFFLOAD_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t RW_TX_OFFLOAD_IPV4_CKSUM = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
static const uint64_t RW_TX_OFFLOAD_UDP_CKSUM = RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
static const uint64_t RW_TX_OFFLOAD_TCP_CKSUM = RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
static const uint64_t RW_TX_OFFLOAD_TCP_TSO = RTE_ETH_TX_OFFLOAD_TCP_TSO;
static const uint64_t RW_RSS_IP_TCP_UDP = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;

static const uint64_t RW_MBUF_F_TX_IPV4 = RTE_MBUF_F_TX_IPV4;
static const uint64_t RW_MBUF_F_TX_IPV6 = RTE_MBUF_F_TX_IPV6;
static const uint64_t RW_MBUF_F_TX_IP_CKSUM = RTE_MBUF_F_TX_IP_CKSUM;
static const uint64_t RW_MBUF_F_TX_TCP_CKSUM = RTE_MBUF_F_TX_TCP_CKSUM;
static const uint64_t RW_MBUF_F_TX_UDP_CKSUM = RTE_MBUF_F_TX_UDP_CKSUM;
static const uint64_t RW_MBUF_F_TX_TCP_SEG = RTE_MBUF_F_TX_TCP_SEG;
static const uint64_t RW_MBUF_F_RX_L4_CKSUM_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t RW_MBUF_F_RX_L4_CKSUM_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t RW_MBUF_F_RX_L4_CKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t RW_MBUF_F_RX_L4_CKSUM_NONE = RTE_MBUF_F_RX_L4_CKSUM_NONE;
static const uint64_t RW_MBUF_F_RX_LRO = RTE_MBUF_F_RX_LRO;

/* The part of struct rte_eth_dev_info that is used. */
struct rw_desc_limits {
	uint16_t min;
	uint16_t max;
	uint16_t align;
	uint16_t preferred; /* 0: the driver recommends none */
};

struct rw_dev_info {
	const char *driver; /* static, owned by the driver */
	uint64_t rx_offload_capa;
	uint64_t tx_offload_capa;
	uint64_t rss_offloads;
	uint32_t max_rx_pktlen;
	uint32_t max_lro_pkt_size; /* 0: the driver does not say */
	uint32_t if_index;         /* the kernel's interface that it is; 0: none */
	uint16_t min_mtu;
	uint16_t max_mtu;
	uint16_t max_rx_queues;
	uint16_t max_tx_queues;
	uint16_t reta_size;
	uint16_t tx_seg_max;     /* segments of a packet that the NIC cuts; 0: no limit */
	uint16_t tx_mtu_seg_max; /* segments of one that it does not, and of each it cuts one into; 0: no limit */
	struct rw_desc_limits rx_desc;
	struct rw_desc_limits tx_desc;
};

struct rw_link {
	uint32_t speed_mbps; /* UINT32_MAX: unknown */
	bool up;
	bool full_duplex;
};

struct rw_port_conf {
	uint64_t rx_offloads;
	uint64_t tx_offloads;
	uint64_t rss_hash; /* 0: no RSS */
	uint32_t max_lro_pkt_size; /* of rw_dev_info */
	uint16_t queue_pairs;
	uint16_t mtu;
	bool rx_interrupts;
};

/* rte_errno of this thread, a positive errno. */
/* Takes what DPDK logs from now on: a level of rte_log.h, and text that is not NUL terminated. 0 or negative errno. */
typedef void (*rw_log_taker)(uint32_t level, const char *text, size_t length);
int rw_log_to(rw_log_taker take);

int rw_errno(void);
uint32_t rw_lcore_id(void);
uint64_t rw_tsc(void);

/* Everything below that returns an int returns 0 or a negative errno. */
int rw_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count);
void rw_pktmbuf_free(struct rte_mbuf *mbuf);
/* Mbufs as they are in the pool: one segment, one reference, no next one; all else is left from their last use. */
int rw_mbuf_raw_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count);
/* Frees packets; those of one segment, as most are, without a call for each. */
void rw_pktmbuf_free_bulk(struct rte_mbuf **mbufs, unsigned int count);

uint16_t rw_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t max);
uint16_t rw_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
uint16_t rw_eth_tx_prepare(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);

int rw_eth_info(uint16_t port, struct rw_dev_info *out);
int rw_eth_link(uint16_t port, struct rw_link *out);
int rw_eth_configure(uint16_t port, const struct rw_port_conf *conf);
int rw_eth_rx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors,
			  const struct rw_port_conf *conf, struct rte_mempool *pool);
int rw_eth_tx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors,
			  const struct rw_port_conf *conf);
/* Spreads the RSS redirection table evenly over the queues. */
int rw_eth_reta_spread(uint16_t port, uint16_t reta_size, uint16_t queues);
/* Stops the port if it runs, closes it, and removes its device when no other port is on it. */
int rw_eth_close(uint16_t port, bool started);

#endif
