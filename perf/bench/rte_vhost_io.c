/* rte_vhost called directly: testpmd's io forwarding without the net_vhost driver in between.
 *
 * One guest with one queue pair, and one NIC, which is DPDK's port 0. The main lcore waits for the end of
 * standard input; the other one forwards. */
#include <stdatomic.h>
#include <stdio.h>

#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_pause.h>
#include <rte_vhost.h>

/* As testpmd's. */
#define BURST 32
#define DESCRIPTORS 512
#define MBUFS 8191
#define CACHE 250

/* The virtqueues, by who writes their buffers. */
enum { TO_GUEST = 0, FROM_GUEST = 1 };

static struct rte_mempool *pool;
static atomic_int guest = -1;
static atomic_ulong rounds;
static atomic_bool stop;

static int new_device(int vid)
{
	atomic_store(&guest, vid);
	return 0;
}

/* The guest's memory goes when this returns: nobody may be inside any more. A round that began before the guest was
 * taken away is over once another one has begun and ended. */
static void destroy_device(int vid)
{
	unsigned long seen;

	(void)vid;
	atomic_store(&guest, -1);
	seen = atomic_load(&rounds);
	while (atomic_load(&rounds) - seen < 2 && !atomic_load(&stop))
		rte_pause();
}

static const struct rte_vhost_device_ops ops = {
	.new_device = new_device,
	.destroy_device = destroy_device,
};

static void forward_burst(int vid)
{
	struct rte_mbuf *mbufs[BURST];
	uint16_t count, sent;

	count = rte_vhost_dequeue_burst(vid, FROM_GUEST, pool, mbufs, BURST);
	if (count > 0) {
		sent = rte_eth_tx_burst(0, 0, mbufs, count);
		if (sent < count)
			rte_pktmbuf_free_bulk(mbufs + sent, count - sent);
	}
	count = rte_eth_rx_burst(0, 0, mbufs, BURST);
	if (count > 0) {
		rte_vhost_enqueue_burst(vid, TO_GUEST, mbufs, count);
		rte_pktmbuf_free_bulk(mbufs, count);
	}
}

static int forward(void *unused)
{
	(void)unused;
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		int vid = atomic_load_explicit(&guest, memory_order_acquire);

		if (vid >= 0)
			forward_burst(vid);
		else
			rte_pause();
		/* Written here alone. Release: what was done in the round comes before. */
		atomic_store_explicit(&rounds, atomic_load_explicit(&rounds, memory_order_relaxed) + 1,
				      memory_order_release);
	}
	return 0;
}

static int start_nic(void)
{
	struct rte_eth_conf conf = {0};

	if (rte_eth_dev_configure(0, 1, 1, &conf) != 0 ||
	    rte_eth_rx_queue_setup(0, 0, DESCRIPTORS, SOCKET_ID_ANY, NULL, pool) != 0 ||
	    rte_eth_tx_queue_setup(0, 0, DESCRIPTORS, SOCKET_ID_ANY, NULL) != 0)
		return -1;
	return rte_eth_dev_start(0);
}

static int start_vhost(const char *path)
{
	if (rte_vhost_driver_register(path, 0) != 0 || rte_vhost_driver_callback_register(path, &ops) != 0)
		return -1;
	return rte_vhost_driver_start(path);
}

/* EAL's arguments, a `--`, and the guest's socket. Says "ready", and returns an exit status. */
int rte_vhost_io(int argc, char **argv)
{
	unsigned int worker;
	int used = rte_eal_init(argc, argv);
	const char *path;

	if (used < 0 || used + 2 != argc)
		return 2;
	path = argv[used + 1];
	pool = rte_pktmbuf_pool_create("mbufs", MBUFS, CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	worker = rte_get_next_lcore(-1, 1, 0);
	if (pool == NULL || worker == RTE_MAX_LCORE || start_nic() != 0 || start_vhost(path) != 0)
		return 1;
	rte_eal_remote_launch(forward, NULL, worker);
	puts("ready");
	fflush(stdout);
	while (getchar() != EOF)
		;
	atomic_store(&stop, true);
	rte_eal_wait_lcore(worker);
	rte_vhost_driver_unregister(path);
	return 0;
}
