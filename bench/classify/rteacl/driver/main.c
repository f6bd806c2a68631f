/* Asks DPDK's librte_acl on behalf of margay-bench.
 *
 *   driver [EAL options]
 *
 * Standard input, in the byte order of the machine: `struct load`, rules, headers;
 * then lines "METHOD BURST". Standard output: "built NANOSECONDS BYTES", then
 * "methods NAME...", then for each line one with the number of wrong answers and
 * the nanoseconds that each chunk of a pass over all headers took. Headers are
 * laid out before a clock starts, as a parser would leave them. A line that begins
 * with "error" is the last.
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rte_acl.h>
#include <rte_byteorder.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_malloc.h>

enum { FIELDS = 5, MAX_BURST = 256 };

struct load {
	uint32_t rules, headers, chunk;
};

struct rule {
	uint32_t source, destination;
	uint8_t source_bits, destination_bits, protocol, protocol_mask;
	uint16_t source_low, source_high, destination_low, destination_high;
};

struct header {
	uint32_t source, destination;
	uint16_t source_port, destination_port;
	uint32_t protocol;
	uint32_t answer; /* position of the rule and 1; 0 where none matches */
};

/* What is classified: 16 bytes, in the order that librte_acl asks for. */
struct key {
	uint8_t protocol, unused[3];
	uint32_t source, destination;
	uint16_t source_port, destination_port;
};

RTE_ACL_RULE_DEF(acl_rule, FIELDS);

#define FIELD(kind, member, bytes, number, group) \
	{ .type = RTE_ACL_FIELD_TYPE_##kind, .size = (bytes), .field_index = (number), \
	  .input_index = (group), .offset = offsetof(struct key, member) }

static const struct rte_acl_field_def fields[FIELDS] = {
	FIELD(BITMASK, protocol, 1, 0, 0),
	FIELD(MASK, source, 4, 1, 1),
	FIELD(MASK, destination, 4, 2, 2),
	FIELD(RANGE, source_port, 2, 3, 3),
	FIELD(RANGE, destination_port, 2, 4, 3),
};

static const struct {
	const char *name;
	enum rte_acl_classify_alg algorithm;
} methods[] = {
	{ "scalar", RTE_ACL_CLASSIFY_SCALAR },
	{ "sse", RTE_ACL_CLASSIFY_SSE },
	{ "avx2", RTE_ACL_CLASSIFY_AVX2 },
	{ "avx512x16", RTE_ACL_CLASSIFY_AVX512X16 },
	{ "avx512x32", RTE_ACL_CLASSIFY_AVX512X32 },
};

static void fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("error ", stdout);
	vprintf(format, args);
	putchar('\n');
	exit(1);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Takes count records off standard input. */
static void *take(size_t count, size_t size)
{
	void *p = calloc(count, size);

	if (p == NULL || fread(p, size, count, stdin) != count)
		fail("take %zu records of %zu bytes: no memory, or the input ends", count, size);
	return p;
}

static size_t heap(void)
{
	struct rte_malloc_socket_stats s = { 0 };

	rte_malloc_get_socket_stats(0, &s);
	return s.heap_allocsz_bytes;
}

static struct rte_acl_ctx *build(const struct rule *rules, uint32_t n)
{
	const struct rte_acl_param param = {
		.name = "margay-bench", .socket_id = SOCKET_ID_ANY,
		.rule_size = RTE_ACL_RULE_SZ(FIELDS), .max_rule_num = n,
	};
	struct rte_acl_config config = { .num_categories = 1, .num_fields = FIELDS };
	struct rte_acl_ctx *context = rte_acl_create(&param);
	struct acl_rule *list = calloc(n, sizeof(*list));
	uint64_t start;
	size_t before;
	int err;

	if (context == NULL || list == NULL)
		fail("make a context for %u rules: %s", n, rte_strerror(rte_errno));
	for (uint32_t i = 0; i < n; i++) {
		const struct rule *r = &rules[i];
		struct rte_acl_field *f = list[i].field;

		list[i].data.category_mask = 1;
		list[i].data.priority = RTE_ACL_MAX_PRIORITY - (int32_t)i;
		list[i].data.userdata = i + 1;
		f[0].value.u8 = r->protocol;
		f[0].mask_range.u8 = r->protocol_mask;
		f[1].value.u32 = r->source;
		f[1].mask_range.u32 = r->source_bits;
		f[2].value.u32 = r->destination;
		f[2].mask_range.u32 = r->destination_bits;
		f[3].value.u16 = r->source_low;
		f[3].mask_range.u16 = r->source_high;
		f[4].value.u16 = r->destination_low;
		f[4].mask_range.u16 = r->destination_high;
	}
	err = rte_acl_add_rules(context, (struct rte_acl_rule *)list, n);
	if (err != 0)
		fail("add %u rules: %s", n, rte_strerror(-err));
	free(list);
	memcpy(config.defs, fields, sizeof(fields));
	before = heap();
	start = now();
	err = rte_acl_build(context, &config);
	if (err != 0)
		fail("build %u rules: %s", n, rte_strerror(-err));
	printf("built %llu %zu\n", (unsigned long long)(now() - start), heap() - before);
	return context;
}

static void say_methods(struct rte_acl_ctx *context)
{
	fputs("methods", stdout);
	for (size_t m = 0; m < RTE_DIM(methods); m++)
		if (rte_acl_set_ctx_classify(context, methods[m].algorithm) == 0)
			printf(" %s", methods[m].name);
	putchar('\n');
	fflush(stdout);
}

static void lay_out(const struct header *in, uint32_t n, struct key *keys, const uint8_t **at)
{
	for (uint32_t i = 0; i < n; i++) {
		keys[i] = (struct key){
			.protocol = (uint8_t)in[i].protocol,
			.source = rte_cpu_to_be_32(in[i].source),
			.destination = rte_cpu_to_be_32(in[i].destination),
			.source_port = rte_cpu_to_be_16(in[i].source_port),
			.destination_port = rte_cpu_to_be_16(in[i].destination_port),
		};
		at[i] = (const uint8_t *)&keys[i];
	}
}

/* Walks over all headers once. */
static void pass(struct rte_acl_ctx *context, const struct load *load, const struct header *headers,
		 const uint8_t **at, uint32_t *results, uint64_t *took, uint32_t burst)
{
	uint32_t chunks = 0, wrong = 0;

	for (uint32_t from = 0; from < load->headers; from += load->chunk, chunks++) {
		uint32_t end = RTE_MIN(from + load->chunk, load->headers);
		uint64_t start = now();

		for (uint32_t i = from; i < end; i += burst)
			rte_acl_classify(context, at + i, results + i, RTE_MIN(burst, end - i), 1);
		took[chunks] = now() - start;
	}
	for (uint32_t i = 0; i < load->headers; i++)
		wrong += results[i] != headers[i].answer;
	printf("%u", wrong);
	for (uint32_t c = 0; c < chunks; c++)
		printf(" %llu", (unsigned long long)took[c]);
	putchar('\n');
	fflush(stdout);
}

static void choose(struct rte_acl_ctx *context, const char *name)
{
	for (size_t m = 0; m < RTE_DIM(methods); m++)
		if (strcmp(name, methods[m].name) == 0 && rte_acl_set_ctx_classify(context, methods[m].algorithm) == 0)
			return;
	fail("method %s is not there", name);
}

int main(int argc, char **argv)
{
	struct rte_acl_ctx *context;
	struct load *load;
	struct rule *rules;
	struct header *headers;
	struct key *keys;
	const uint8_t **at;
	uint32_t *results;
	uint64_t *took;
	char name[32];
	unsigned int burst;

	if (rte_eal_init(argc, argv) < 0)
		fail("start DPDK: %s", rte_strerror(rte_errno));
	load = take(1, sizeof(*load));
	if (load->chunk == 0 || load->rules == 0 || load->headers == 0)
		fail("%u rules, %u headers, chunks of %u: want some of each", load->rules, load->headers, load->chunk);
	rules = take(load->rules, sizeof(*rules));
	headers = take(load->headers, sizeof(*headers));
	context = build(rules, load->rules);
	say_methods(context);
	keys = rte_malloc(NULL, load->headers * sizeof(*keys), 64);
	at = calloc(load->headers, sizeof(*at));
	results = calloc((size_t)load->headers + MAX_BURST, sizeof(*results));
	took = calloc(load->headers / load->chunk + 1, sizeof(*took));
	if (keys == NULL || at == NULL || results == NULL || took == NULL)
		fail("lay out %u headers: no memory", load->headers);
	lay_out(headers, load->headers, keys, at);
	while (scanf("%31s %u", name, &burst) == 2) {
		if (burst < 1 || burst > MAX_BURST)
			fail("burst of %u, want 1 to %u", burst, MAX_BURST);
		choose(context, name);
		pass(context, load, headers, at, results, took, burst);
	}
	return 0;
}
