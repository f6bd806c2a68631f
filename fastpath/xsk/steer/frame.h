/* Reading of frames: Ethernet, VLAN tags, IPv4, IPv6 and its extension headers. */
#ifndef MARGAY_FRAME_H
#define MARGAY_FRAME_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define VLAN_TAGS      2           /* outer and inner */
#define EXT_HEADERS    8           /* IPv6 extension headers walked at most */
#define DEEPEST        4096        /* offset beyond which nothing is parsed */

#define PROTO_ICMP6    58
#define PROTO_HOPOPTS  0
#define PROTO_ROUTING  43
#define PROTO_FRAGMENT 44
#define PROTO_AH       51
#define PROTO_DSTOPTS  60

/* An address in network byte order; IPv4 fills the first word. */
struct address {
	__u32 word[4];
};

/* The part of a frame that can be read directly. */
struct frame {
	void *data;
	void *end;
};

enum fragment {
	FRAGMENT_NONE,
	FRAGMENT_FIRST,
	FRAGMENT_LATER, /* has no transport header */
};

/* What is read of an IP header, the frame's own or one that an ICMP error quotes. */
struct packet {
	struct address src;
	struct address dst;
	__u32 id;        /* of the fragmented packet */
	__u32 transport; /* offset of the transport header in the frame */
	enum fragment fragment;
	__u8 family;     /* 4 or 6 */
	__u8 proto;
};

struct ipv4 {
	__u8   version_ihl;
	__u8   tos;
	__be16 length;
	__be16 id;
	__be16 fragment;
	__u8   ttl;
	__u8   proto;
	__be16 check;
	__u32  src;
	__u32  dst;
};

struct ipv6 {
	__u8   version;
	__u8   flow[3];
	__be16 length;
	__u8   next;
	__u8   hop_limit;
	struct address src;
	struct address dst;
};

/* The first eight bytes of an extension header; none is shorter. */
struct extension {
	__u8   next;
	__u8   length;
	__be16 offset; /* of a fragment header, as is the next */
	__u32  id;
};

struct ethernet {
	__u8   dst[6];
	__u8   src[6];
	__be16 type;
};

struct vlan {
	__be16 tag;
	__be16 type;
};

/* The first eight bytes of ICMP; an error's quotation follows. */
struct icmp {
	__u8   type;
	__u8   code;
	__be16 check;
	__be16 id;
	__be16 seq;
};

struct ports {
	__be16 src;
	__be16 dst;
};

#define ICMP_HEADER 8

static __always_inline struct frame frame_of(const struct xdp_md *ctx)
{
	struct frame f = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};

	return f;
}

/* at returns the size bytes at offset, or null where the frame is shorter. */
static __always_inline void *at(const struct frame *f, __u32 offset, __u32 size)
{
	void *p;

	if (offset > DEEPEST)
		return 0;
	p = f->data + offset;
	if (p + size > f->end)
		return 0;
	return p;
}

static __always_inline int parse4(const struct frame *f, __u32 offset, struct packet *p)
{
	struct ipv4 *ip = at(f, offset, sizeof(*ip));
	__u32 length;

	if (!ip || ip->version_ihl >> 4 != 4)
		return -1;
	length = (ip->version_ihl & 0xf) * 4;
	if (length < sizeof(*ip))
		return -1;
	p->family = 4;
	p->src.word[0] = ip->src;
	p->dst.word[0] = ip->dst;
	p->proto = ip->proto;
	p->id = ip->id;
	p->transport = offset + length;
	if (ip->fragment & bpf_htons(0x1fff))
		p->fragment = FRAGMENT_LATER;
	else if (ip->fragment & bpf_htons(0x2000))
		p->fragment = FRAGMENT_FIRST;
	return 0;
}

static __always_inline int is_extension(__u8 next)
{
	return next == PROTO_HOPOPTS || next == PROTO_ROUTING || next == PROTO_DSTOPTS ||
	       next == PROTO_AH || next == PROTO_FRAGMENT;
}

/*
 * walk follows the extension headers from one of kind next to the transport header.
 * It is a function of its own, and so takes no struct frame: the verifier looks at
 * it once and forgets how the caller got here, or it would follow each combination
 * of headers through all that comes after.
 */
__noinline int walk(struct xdp_md *ctx, __u32 offset, __u32 first, struct packet *p)
{
	struct frame frame = frame_of(ctx), *f = &frame;
	__u8 next = first;

	if (!p)
		return -1;
	for (int i = 0; i < EXT_HEADERS && is_extension(next); i++) {
		struct extension *h = at(f, offset, sizeof(*h));
		__u32 length;

		if (!h)
			return -1;
		length = (h->length + 1) * 8;
		if (next == PROTO_AH)
			length = (h->length + 2) * 4;
		if (next == PROTO_FRAGMENT) {
			length = sizeof(*h);
			p->id = h->id;
			if (h->offset & bpf_htons(0xfff8))
				p->fragment = FRAGMENT_LATER;
			else if (h->offset & bpf_htons(1))
				p->fragment = FRAGMENT_FIRST;
		}
		next = h->next;
		offset += length;
		if (offset > DEEPEST)
			return -1;
		if (p->fragment == FRAGMENT_LATER)
			break; /* what follows is the middle of something */
	}
	p->proto = next;
	p->transport = offset;
	return p->fragment != FRAGMENT_LATER && is_extension(next) ? -1 : 0;
}

static __always_inline int parse6(struct xdp_md *ctx, const struct frame *f, __u32 offset, struct packet *p)
{
	struct ipv6 *ip = at(f, offset, sizeof(*ip));

	if (!ip || ip->version >> 4 != 6)
		return -1;
	p->family = 6;
	p->src = ip->src;
	p->dst = ip->dst;
	return walk(ctx, offset + sizeof(*ip), ip->next, p);
}

/* network finds the IP header: its ethertype, 0 where there is none, and its offset. */
static __always_inline __be16 network(const struct frame *f, __u32 *offset)
{
	struct ethernet *eth = at(f, 0, sizeof(*eth));
	__be16 type;

	if (!eth)
		return 0;
	type = eth->type;
	*offset = sizeof(*eth);
	for (int i = 0; i < VLAN_TAGS; i++) {
		struct vlan *tag;

		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		tag = at(f, *offset, sizeof(*tag));
		if (!tag)
			return 0;
		type = tag->type;
		*offset += sizeof(*tag);
	}
	return type;
}

#endif
