// SPDX-License-Identifier: Apache-2.0

// Rings that packets are received through, PACKET_RX_RING of packet(7).
#include "packet.h"
#include <sys/mman.h>

// A ring of any version: three blocks of two pages.
struct ring {
	int fd, version, blocks, block, frame, head;
	unsigned char *map;
};

static long ring_set(struct ring *r)
{
	struct tpacket_req3 q = { .tp_block_size = r->block, .tp_block_nr = r->blocks, .tp_frame_size = r->frame,
		.tp_frame_nr = r->frame ? r->block / r->frame * r->blocks : 0, .tp_retire_blk_tov = 60 };
	return setsockopt(r->fd, SOL_PACKET, PACKET_RX_RING, &q, r->version == TPACKET_V3 ? sizeof q : sizeof(struct tpacket_req));
}

static const char *ring_frame(struct ring *r, const unsigned char *f, unsigned snaplen, unsigned len, unsigned mac, unsigned net, unsigned status, int size, int header)
{
	static char out[500];
	const struct sockaddr_ll *a = (void *)(f + TPACKET_ALIGN(size));
	snprintf(out, sizeof out, "len %u snaplen %u mac %u net %u %s%s%s; %s; %s", len, snaplen, mac, net, status & TP_STATUS_USER ? "user" : "",
		status & TP_STATUS_LOSING ? " losing" : "", status & TP_STATUS_COPY ? " copy" : "", frame(f + mac, snaplen, header), link_name(a));
	return out;
}

// ring_next prints the next packet or block and gives it back; 0 when there is none.
static int ring_next(struct ring *r, int header, int keep)
{
	if (r->version == TPACKET_V3) {
		struct tpacket_block_desc *b = (void *)(r->map + r->head * r->block);
		unsigned status = __atomic_load_n(&b->hdr.bh1.block_status, __ATOMIC_ACQUIRE);
		if (!(status & TP_STATUS_USER))
			return 0;
		say("block %d: version %u priv %u packets %u first %u length %u seq %llu%s", r->head, b->version, b->offset_to_priv, b->hdr.bh1.num_pkts,
			b->hdr.bh1.offset_to_first_pkt, b->hdr.bh1.blk_len, (unsigned long long)b->hdr.bh1.seq_num, status & TP_STATUS_BLK_TMO ? " timeout" : "");
		unsigned char *p = (unsigned char *)b + b->hdr.bh1.offset_to_first_pkt;
		struct tpacket3_hdr *h = (void *)p;
		for (unsigned i = 0; i < b->hdr.bh1.num_pkts; i++) {
			h = (void *)p;
			say("packet: next %u %s", h->tp_next_offset, ring_frame(r, p, h->tp_snaplen, h->tp_len, h->tp_mac, h->tp_net, h->tp_status, sizeof *h, header));
			if (h->tp_sec * 1000000000LL + h->tp_nsec < b->hdr.bh1.ts_first_pkt.ts_sec * 1000000000LL + b->hdr.bh1.ts_first_pkt.ts_nsec)
				say("WRONG: before the block was opened");
			p += h->tp_next_offset;
		}
		if (h->tp_sec != b->hdr.bh1.ts_last_pkt.ts_sec || h->tp_nsec != b->hdr.bh1.ts_last_pkt.ts_nsec || labs((long)h->tp_sec - time(NULL)) > 2)
			say("WRONG last stamp");
		if (!keep)
			__atomic_store_n(&b->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
		r->head = (r->head + 1) % r->blocks;
		return 1;
	}
	int per = r->block / r->frame;
	unsigned char *p = r->map + r->head / per * r->block + r->head % per * r->frame;
	if (r->version == TPACKET_V2) {
		struct tpacket2_hdr *h = (void *)p;
		unsigned status = __atomic_load_n(&h->tp_status, __ATOMIC_ACQUIRE);
		if (!(status & TP_STATUS_USER))
			return 0;
		say("frame %d: %s", r->head, ring_frame(r, p, h->tp_snaplen, h->tp_len, h->tp_mac, h->tp_net, status, sizeof *h, header));
		if (labs((long)h->tp_sec - time(NULL)) > 2)
			say("WRONG stamp");
		if (!keep)
			__atomic_store_n(&h->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
	} else {
		struct tpacket_hdr *h = (void *)p;
		unsigned long status = __atomic_load_n(&h->tp_status, __ATOMIC_ACQUIRE);
		if (!(status & TP_STATUS_USER))
			return 0;
		say("frame %d: %s", r->head, ring_frame(r, p, h->tp_snaplen, h->tp_len, h->tp_mac, h->tp_net, status, sizeof *h, header));
		if (labs((long)h->tp_sec - time(NULL)) > 2)
			say("WRONG stamp");
		if (!keep)
			__atomic_store_n(&h->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
	}
	r->head = (r->head + 1) % (per * r->blocks);
	return 1;
}

// quiet waits until poll has nothing to say, and tells whether it came to that.
static const char *quiet(int fd)
{
	for (int i = 0; i < 200; i++) {
		if (!ready(fd, POLLIN, 0))
			return "quiet";
		nap(5);
	}
	return "WRONG: readable for ever";
}

static void ring(const char *name, int version, int type, int index, int header)
{
	begin("packetring/%s", name);
	struct ring r = { .version = version, .blocks = 3, .block = 8192, .frame = 2048 };
	r.fd = need("socket", socket(AF_PACKET, type, 0));
	struct sockaddr_ll a = at(index, 0);
	need("bind", bind(r.fd, (struct sockaddr *)&a, sizeof a)); // no packets until there is a ring, as libpcap does
	ok("PACKET_VERSION", setsockopt(r.fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version));
	ok("PACKET_RX_RING", ring_set(&r));
	ok("PACKET_VERSION", setsockopt(r.fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version));
	r.map = mmap(NULL, r.block * r.blocks, PROT_READ | PROT_WRITE, MAP_SHARED, r.fd, 0);
	need("mmap", r.map == MAP_FAILED ? -1 : 0);
	a = at(index, ETH_P_IP);
	ok("bind", bind(r.fd, (struct sockaddr *)&a, sizeof a));
	local("getsockname", r.fd);
	const char *ip = index == lo ? "127.0.0.1" : env("LAB_PEER4");
	int port = index == lo ? 4000 : ECHO, own = index == lo ? sink(ip, port) : -1;
	say("poll: %s", events(ready(r.fd, POLLIN | POLLOUT, 0)));
	char p[100];
	num("recv", recv(r.fd, p, sizeof p, MSG_DONTWAIT));
	long long start = now_ms();
	for (int i = 0; i < 3; i++)
		close(tell(ip, port, "mark-13"));
	say("poll: %s", events(ready(r.fd, POLLIN, 3000)));
	if (version == TPACKET_V3 && now_ms() - start > 500)
		say("WRONG: late");
	nap(100);
	while (ring_next(&r, header, 0))
		;
	say("then: %s", quiet(r.fd));
	stats("statistics", r.fd);
	close(tell(ip, port, "mark-14"));
	say("poll: %s", events(ready(r.fd, POLLIN, 3000)));
	nap(100);
	while (ring_next(&r, header, 0))
		;
	say("then: %s", quiet(r.fd));
	struct ring no = r;
	no.blocks = 0, no.frame = 0;
	ok("mapped", ring_set(&no));
	ok("munmap", munmap(r.map, r.block * r.blocks));
	ok("free", ring_set(&no));
	close(tell(ip, port, "mark-15"));
	num("plain again", ready(r.fd, POLLIN, 3000) & POLLIN ? recv(r.fd, p, sizeof p, MSG_DONTWAIT) : 0);
	close(r.fd);
	close(own);
}

// full fills a ring that nobody reads.
static void full(const char *name, int version)
{
	begin("packetring/full-%s", name);
	struct ring r = { .version = version, .blocks = 2, .block = 4096, .frame = 1024 };
	int own = sink("127.0.0.1", 4000);
	r.fd = need("socket", socket(AF_PACKET, SOCK_DGRAM, 0));
	need("PACKET_VERSION", setsockopt(r.fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version));
	need("PACKET_RX_RING", ring_set(&r));
	r.map = mmap(NULL, r.block * r.blocks, PROT_READ | PROT_WRITE, MAP_SHARED, r.fd, 0);
	need("mmap", r.map == MAP_FAILED ? -1 : 0);
	struct sockaddr_ll a = at(lo, ETH_P_IP);
	need("bind", bind(r.fd, (struct sockaddr *)&a, sizeof a));
	struct addr to = mk("127.0.0.1", 4000);
	int udp = need("socket", socket(AF_INET, SOCK_DGRAM, 0));
	for (int i = 0; i < 100; i++)
		sendto(udp, "mark-16 and more", 16, 0, &to.sa, to.len);
	nap(200);
	say("poll: %s", events(ready(r.fd, POLLIN, 3000)));
	stats("statistics", r.fd);
	while (ring_next(&r, 0, 0))
		;
	sendto(udp, "mark-17 and more", 16, 0, &to.sa, to.len);
	nap(200);
	while (ring_next(&r, 0, 0))
		;
	stats("statistics", r.fd);
	close(r.fd), close(udp), close(own);
}

// odd is a request for a ring that is refused.
static void odd(const char *label, int version, int reserve, struct tpacket_req3 q, int size)
{
	int fd = need("socket", socket(AF_PACKET, SOCK_RAW, 0));
	need("PACKET_VERSION", setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version));
	need("PACKET_RESERVE", setsockopt(fd, SOL_PACKET, PACKET_RESERVE, &reserve, sizeof reserve));
	ok(label, setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &q, size));
	close(fd);
}

static void rings(void)
{
	begin("packetring/requests");
	struct tpacket_req3 q = { .tp_block_size = 8192, .tp_block_nr = 2, .tp_frame_size = 2048, .tp_frame_nr = 8 }, x;
	int two = sizeof(struct tpacket_req), three = sizeof q;
	odd("v2", TPACKET_V2, 0, q, two);
	odd("v3", TPACKET_V3, 0, q, three);
	odd("v3, short", TPACKET_V3, 0, q, two);
	odd("v2, short", TPACKET_V2, 0, q, two - 1);
	odd("v1, long", TPACKET_V1, 0, q, three);
	x = q, x.tp_block_size = 8000;
	odd("no page", TPACKET_V2, 0, x, two);
	x = q, x.tp_block_size = -8192;
	odd("negative", TPACKET_V2, 0, x, two);
	x = q, x.tp_frame_size = 2040;
	odd("frames not aligned", TPACKET_V2, 0, x, two);
	x = q, x.tp_frame_size = 48, x.tp_frame_nr = 340;
	odd("frames too small", TPACKET_V2, 0, x, two);
	x = q, x.tp_frame_size = 64, x.tp_frame_nr = 256;
	odd("small frames", TPACKET_V2, 0, x, two);
	odd("small frames, reserve", TPACKET_V2, 16, x, two);
	odd("small frames, v3", TPACKET_V3, 0, x, three);
	x = q, x.tp_frame_nr = 9;
	odd("frames do not fit", TPACKET_V2, 0, x, two);
	x = q, x.tp_frame_size = 16384;
	odd("frame above block", TPACKET_V2, 0, x, two);
	x = q, x.tp_block_nr = 0, x.tp_frame_nr = 0;
	odd("none", TPACKET_V2, 0, x, two);
	x.tp_frame_nr = 1;
	odd("none, frames", TPACKET_V2, 0, x, two);
	x = q, x.tp_sizeof_priv = 9000;
	odd("private area", TPACKET_V3, 0, x, three);

	ring("v1-raw-lo", TPACKET_V1, SOCK_RAW, lo, 14);
	ring("v2-raw-lo", TPACKET_V2, SOCK_RAW, lo, 14);
	ring("v2-dgram-lo", TPACKET_V2, SOCK_DGRAM, lo, 0);
	ring("v2-raw-dev", TPACKET_V2, SOCK_RAW, dev, 0);
	ring("v3-raw-lo", TPACKET_V3, SOCK_RAW, lo, 14);
	ring("v3-dgram-lo", TPACKET_V3, SOCK_DGRAM, lo, 0);
	ring("v3-raw-dev", TPACKET_V3, SOCK_RAW, dev, 0);
	ring("v3-dgram-dev", TPACKET_V3, SOCK_DGRAM, dev, 0);
	full("v1", TPACKET_V1);
	full("v2", TPACKET_V2);
	full("v3", TPACKET_V3);
}

int main(void)
{
	deadline(55);
	places();
	rings();
	return 0;
}
