/* Static inlines of DPDK, once per burst, and calls whose structures differ between releases. */
#define _GNU_SOURCE /* fopencookie */
#include "wrapper.h"

#include <errno.h>
#include <stdio.h>

int rw_errno(void)
{
	return rte_errno;
}

static rw_log_taker log_taker;

static ssize_t write_log(void *cookie, const char *text, size_t length)
{
	(void)cookie;
	log_taker((uint32_t)rte_log_cur_msg_loglevel(), text, length);
	return (ssize_t)length;
}

/* rte_vlog flushes after each message, so that each is one write, of its own level. */
int rw_log_to(rw_log_taker take)
{
	FILE *stream = fopencookie(NULL, "w", (cookie_io_functions_t){ .write = write_log });

	if (stream == NULL)
		return -errno;
	log_taker = take;
	return rte_openlog_stream(stream);
}

uint32_t rw_lcore_id(void)
{
	return rte_lcore_id();
}

uint64_t rw_tsc(void)
{
	return rte_rdtsc();
}

int rw_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

void rw_pktmbuf_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

int rw_mbuf_raw_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count)
{
	return rte_mempool_get_bulk(pool, (void **)mbufs, count);
}

/* Whether a mbuf is a whole packet with a buffer of its own, and nothing is left to undo in it. */
static inline bool is_plain(const struct rte_mbuf *mbuf)
{
	return mbuf->nb_segs == 1 && mbuf->next == NULL && rte_mbuf_refcnt_read(mbuf) == 1 &&
	       (mbuf->ol_flags & (RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL)) == 0;
}

void rw_pktmbuf_free_bulk(struct rte_mbuf **mbufs, unsigned int count)
{
	unsigned int first = 0;

	while (first < count) {
		struct rte_mempool *pool = mbufs[first]->pool;
		unsigned int end = first;

		while (end < count && mbufs[end]->pool == pool && is_plain(mbufs[end]))
			end++;
		if (end > first)
			rte_mempool_put_bulk(pool, (void **)&mbufs[first], end - first);
		else
			rte_pktmbuf_free(mbufs[end++]);
		first = end;
	}
}

uint16_t rw_eth_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t max)
{
	return rte_eth_rx_burst(port, queue, mbufs, max);
}

uint16_t rw_eth_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, mbufs, count);
}

uint16_t rw_eth_tx_prepare(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_prepare(port, queue, mbufs, count);
}

static struct rw_desc_limits limits(const struct rte_eth_desc_lim *lim, uint16_t preferred)
{
	return (struct rw_desc_limits){
		.min = lim->nb_min,
		.max = lim->nb_max,
		.align = lim->nb_align,
		.preferred = preferred,
	};
}

int rw_eth_info(uint16_t port, struct rw_dev_info *out)
{
	struct rte_eth_dev_info info;
	int ret = rte_eth_dev_info_get(port, &info);

	if (ret != 0)
		return ret;
	*out = (struct rw_dev_info){
		.driver = info.driver_name,
		.rx_offload_capa = info.rx_offload_capa,
		.tx_offload_capa = info.tx_offload_capa,
		.rss_offloads = info.flow_type_rss_offloads,
		.max_rx_pktlen = info.max_rx_pktlen,
		.max_lro_pkt_size = info.max_lro_pkt_size,
		.if_index = info.if_index,
		.min_mtu = info.min_mtu,
		.max_mtu = info.max_mtu,
		.max_rx_queues = info.max_rx_queues,
		.max_tx_queues = info.max_tx_queues,
		.reta_size = info.reta_size,
		.tx_seg_max = info.tx_desc_lim.nb_seg_max,
		.tx_mtu_seg_max = info.tx_desc_lim.nb_mtu_seg_max,
		.rx_desc = limits(&info.rx_desc_lim, info.default_rxportconf.ring_size),
		.tx_desc = limits(&info.tx_desc_lim, info.default_txportconf.ring_size),
	};
	return 0;
}

int rw_eth_link(uint16_t port, struct rw_link *out)
{
	struct rte_eth_link link;
	int ret = rte_eth_link_get_nowait(port, &link);

	if (ret != 0)
		return ret;
	out->speed_mbps = link.link_speed;
	out->up = link.link_status == RTE_ETH_LINK_UP;
	out->full_duplex = link.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	return 0;
}

int rw_eth_configure(uint16_t port, const struct rw_port_conf *conf)
{
	struct rte_eth_conf eth = {0};

	eth.rxmode.mtu = conf->mtu;
	eth.rxmode.offloads = conf->rx_offloads;
	eth.rxmode.max_lro_pkt_size = conf->max_lro_pkt_size;
	eth.txmode.offloads = conf->tx_offloads;
	eth.intr_conf.rxq = conf->rx_interrupts;
	if (conf->rss_hash != 0) {
		eth.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		eth.rx_adv_conf.rss_conf.rss_hf = conf->rss_hash;
	}
	return rte_eth_dev_configure(port, conf->queue_pairs, conf->queue_pairs, &eth);
}

int rw_eth_rx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors,
			  const struct rw_port_conf *conf, struct rte_mempool *pool)
{
	struct rte_eth_dev_info info;
	struct rte_eth_rxconf rx;
	int ret = rte_eth_dev_info_get(port, &info);

	if (ret != 0)
		return ret;
	rx = info.default_rxconf;
	rx.offloads = conf->rx_offloads;
	return rte_eth_rx_queue_setup(port, queue, descriptors, rte_eth_dev_socket_id(port), &rx, pool);
}

int rw_eth_tx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors,
			  const struct rw_port_conf *conf)
{
	struct rte_eth_dev_info info;
	struct rte_eth_txconf tx;
	int ret = rte_eth_dev_info_get(port, &info);

	if (ret != 0)
		return ret;
	tx = info.default_txconf;
	tx.offloads = conf->tx_offloads;
	return rte_eth_tx_queue_setup(port, queue, descriptors, rte_eth_dev_socket_id(port), &tx);
}

#define RETA_GROUPS 64

int rw_eth_reta_spread(uint16_t port, uint16_t reta_size, uint16_t queues)
{
	struct rte_eth_rss_reta_entry64 table[RETA_GROUPS] = {0};

	if (reta_size > RETA_GROUPS * RTE_ETH_RETA_GROUP_SIZE || queues == 0)
		return -EINVAL;
	for (uint16_t i = 0; i < reta_size; i++) {
		struct rte_eth_rss_reta_entry64 *group = &table[i / RTE_ETH_RETA_GROUP_SIZE];

		group->mask |= UINT64_C(1) << (i % RTE_ETH_RETA_GROUP_SIZE);
		group->reta[i % RTE_ETH_RETA_GROUP_SIZE] = i % queues;
	}
	return rte_eth_dev_rss_reta_update(port, table, reta_size);
}

int rw_eth_close(uint16_t port, bool started)
{
	struct rte_eth_dev_info info;
	struct rte_device *device = NULL;
	int first = 0;
	int ret;

	/* Asked before closing: the port knows its device no longer afterwards. */
	if (rte_eth_dev_info_get(port, &info) == 0)
		device = info.device;
	if (started)
		first = rte_eth_dev_stop(port);
	ret = rte_eth_dev_close(port);
	if (first == 0)
		first = ret;
	if (device != NULL && rte_eth_find_next_of(0, device) == RTE_MAX_ETHPORTS) {
		ret = rte_dev_remove(device);
		/* A bus that cannot unplug keeps the closed device: nothing is lost. */
		if (first == 0 && ret != -ENOTSUP)
			first = ret;
	}
	return first;
}
