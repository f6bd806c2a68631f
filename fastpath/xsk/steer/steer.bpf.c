//go:build ignore

/*
 * Which frames of a port are ours? The program runs on every frame that a port
 * receives, before the kernel sees it, and redirects what is ours into the AF_XDP
 * socket of the queue. All else is passed to the kernel.
 *
 * Ours is:
 *   - a packet to a prefix that is ours whole;
 *   - a packet to an address of the node itself (local), if its transport protocol
 *     and destination port are a service of ours, if it is an echo reply to an id
 *     of ours, or if its protocol without ports is ours;
 *   - an ICMP error about a packet that came from us: its source is in a prefix
 *     that is ours whole, or is local with a source port or echo id of ours;
 *   - a fragment that follows a first fragment of ours.
 *
 * What is ours while the queue has no socket is dropped and counted, never passed
 * on unjudged. A packet whose headers are cut off or lie is passed: the kernel
 * judges it as it would without us.
 */
#include <linux/in.h>

#include "frame.h"

#define FRAGMENT_LIFE  30000000000 /* ns; the host's reassembly gives up after as long */

/* Values of the prefix maps. No entry means not ours. */
enum ownership {
	NONE,
	WHOLE,
	LOCAL,
};

/* What the program did with a frame; unparsed frames are passed, and count as both. */
enum counter {
	REDIRECTED,
	PASSED,
	NO_SOCKET,
	UNPARSED,
	COUNTERS,
};

/*
 * Keys of the services: the destination ports of each protocol that has them, the
 * ids of echo replies, and the protocols that have neither.
 */
enum plane {
	TCP,
	UDP,
	SCTP,
	ICMP,
	ICMP6,
	PROTOCOL,
	PLANES,
};

/* One bit for each number of a plane that is ours. */
struct numbers {
	__u64 word[65536 / 64];
};

struct prefix4_key {
	__u32 bits;
	__u8  address[4];
};

struct prefix6_key {
	__u32 bits;
	__u8  address[16];
};

struct fragment_key {
	struct address src;
	struct address dst;
	__u32 id;
	__u8  family;
	__u8  proto; /* IPv4; in IPv6 the fragments of a packet may differ in it, so 0 */
	__u16 zero;
};

/* Shared by all ports of a node. */

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct prefix4_key);
	__type(value, enum ownership);
} prefix4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct prefix6_key);
	__type(value, enum ownership);
} prefix6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PLANES);
	__type(key, enum plane);
	__type(value, struct numbers);
} services SEC(".maps");

/* First fragments that were ours, by when they came (ns, monotonic). */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct fragment_key);
	__type(value, __u64);
} fragments SEC(".maps");

/* One of each per port. */

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1); /* set to the number of queues on load */
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, enum counter);
	__type(value, __u64);
} counters SEC(".maps");

static __always_inline void count(enum counter c)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &c);

	if (n)
		(*n)++;
}

static __always_inline enum ownership owner4(const struct address *a)
{
	struct prefix4_key key = { .bits = 32 };
	enum ownership *o;

	__builtin_memcpy(key.address, a, sizeof(key.address));
	o = bpf_map_lookup_elem(&prefix4, &key);
	return o ? *o : NONE;
}

static __always_inline enum ownership owner6(const struct address *a)
{
	struct prefix6_key key = { .bits = 128 };
	enum ownership *o;

	__builtin_memcpy(key.address, a, sizeof(key.address));
	o = bpf_map_lookup_elem(&prefix6, &key);
	return o ? *o : NONE;
}

static __always_inline enum ownership owner(__u8 family, const struct address *a)
{
	return family == 4 ? owner4(a) : owner6(a);
}

/* service says whether number is ours in a plane. */
static __always_inline int service(enum plane plane, __u16 number)
{
	struct numbers *n = bpf_map_lookup_elem(&services, &plane);

	return n && (n->word[number / 64] >> (number % 64) & 1);
}

static __always_inline int plane_of(__u8 proto)
{
	switch (proto) {
	case IPPROTO_TCP:
		return TCP;
	case IPPROTO_UDP:
		return UDP;
	case IPPROTO_SCTP:
		return SCTP;
	}
	return -1;
}

static __always_inline int is_icmp(const struct packet *p)
{
	return p->family == 4 ? p->proto == IPPROTO_ICMP : p->proto == PROTO_ICMP6;
}

/* error says whether an ICMP type quotes the packet that it is about. */
static __always_inline int error(__u8 family, __u8 type)
{
	if (family == 6)
		return type >= 1 && type <= 4;
	return type == 3 || type == 11 || type == 12; /* a redirect is the host's affair */
}

static __always_inline int echo(__u8 family, __u8 type)
{
	return family == 4 ? type == 8 || type == 0 : type == 128 || type == 129;
}

static __always_inline int echo_reply(__u8 family, __u8 type)
{
	return family == 4 ? type == 0 : type == 129;
}

static __always_inline enum plane echo_plane(__u8 family)
{
	return family == 4 ? ICMP : ICMP6;
}

/*
 * quoted says whether the packet that an ICMP error quotes at offset came from us.
 * A function of its own, as walk is.
 */
__noinline int quoted(struct xdp_md *ctx, __u32 offset, __u32 family)
{
	struct frame f = frame_of(ctx);
	struct packet p = {};
	struct ports *ports;
	enum ownership o;
	int plane;

	if (family == 4 ? parse4(&f, offset, &p) : parse6(ctx, &f, offset, &p))
		return 0;
	o = owner(p.family, &p.src);
	if (o != LOCAL || p.fragment == FRAGMENT_LATER)
		return o == WHOLE;
	if (is_icmp(&p)) {
		struct icmp *icmp = at(&f, p.transport, sizeof(*icmp));

		return icmp && echo(p.family, icmp->type) &&
		       service(echo_plane(p.family), bpf_ntohs(icmp->id));
	}
	plane = plane_of(p.proto);
	if (plane < 0)
		return service(PROTOCOL, p.proto);
	ports = at(&f, p.transport, sizeof(*ports));
	return ports && service(plane, bpf_ntohs(ports->src));
}

/* wanted judges a packet that has its transport header and is not ours by address. */
static __always_inline int wanted(struct xdp_md *ctx, const struct frame *f, const struct packet *p,
				  enum ownership o)
{
	struct ports *ports;
	int plane;

	if (is_icmp(p)) {
		struct icmp *icmp = at(f, p->transport, sizeof(*icmp));

		if (!icmp)
			return 0;
		if (error(p->family, icmp->type))
			return quoted(ctx, p->transport + ICMP_HEADER, p->family);
		return o == LOCAL && echo_reply(p->family, icmp->type) &&
		       service(echo_plane(p->family), bpf_ntohs(icmp->id));
	}
	if (o != LOCAL)
		return 0;
	plane = plane_of(p->proto);
	if (plane < 0)
		return service(PROTOCOL, p->proto);
	ports = at(f, p->transport, sizeof(*ports));
	return ports && service(plane, bpf_ntohs(ports->dst));
}

static __always_inline void fragment_key(const struct packet *p, struct fragment_key *key)
{
	key->src = p->src;
	key->dst = p->dst;
	key->id = p->id;
	key->family = p->family;
	key->proto = p->family == 4 ? p->proto : 0;
}

/* follows says whether the first fragment of this one's packet was ours. */
static __always_inline int follows(const struct packet *p)
{
	struct fragment_key key = {};
	__u64 *since;

	fragment_key(p, &key);
	since = bpf_map_lookup_elem(&fragments, &key);
	return since && bpf_ktime_get_ns() - *since < FRAGMENT_LIFE;
}

/* remember notes a first fragment of ours, and forgets an old one of the same id. */
static __always_inline void remember(const struct packet *p, int ours)
{
	struct fragment_key key = {};
	__u64 now;

	fragment_key(p, &key);
	if (!ours) {
		bpf_map_delete_elem(&fragments, &key);
		return;
	}
	now = bpf_ktime_get_ns();
	bpf_map_update_elem(&fragments, &key, &now, BPF_ANY);
}

/* ours judges a frame; -1 says that it could not be parsed. */
static __always_inline int ours(struct xdp_md *ctx)
{
	struct frame f = frame_of(ctx);
	struct packet p = {};
	enum ownership o;
	__u32 offset = 0;
	int verdict;

	switch (network(&f, &offset)) {
	case bpf_htons(ETH_P_IP):
		verdict = parse4(&f, offset, &p);
		break;
	case bpf_htons(ETH_P_IPV6):
		verdict = parse6(ctx, &f, offset, &p);
		break;
	case 0:
		return -1;
	default:
		return 0;
	}
	if (!p.family)
		return -1;
	o = owner(p.family, &p.dst);
	if (o == WHOLE)
		return 1; /* whatever follows the addresses */
	if (verdict)
		return -1;
	if (p.fragment == FRAGMENT_LATER)
		return follows(&p);
	verdict = wanted(ctx, &f, &p, o);
	if (p.fragment == FRAGMENT_FIRST)
		remember(&p, verdict);
	return verdict;
}

/* redirect gives a frame to the socket of its queue. */
static __always_inline int redirect(struct xdp_md *ctx)
{
	int action = bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_DROP);

	count(action == XDP_REDIRECT ? REDIRECTED : NO_SOCKET);
	return action;
}

/* For ports that are shared with the kernel. */
SEC("xdp.frags")
int margay_steer(struct xdp_md *ctx)
{
	int verdict = ours(ctx);

	if (verdict > 0)
		return redirect(ctx);
	if (verdict < 0)
		count(UNPARSED);
	count(PASSED);
	return XDP_PASS;
}

/* For ports that are ours whole: dedicated ones and the veths of workloads. */
SEC("xdp.frags")
int margay_takeover(struct xdp_md *ctx)
{
	return redirect(ctx);
}

char licence[] SEC("license") = "Dual BSD/GPL";
