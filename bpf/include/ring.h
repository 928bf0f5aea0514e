/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The way of socket records out of the kernel: one ring a CPU, in arrays that user space maps. No lock is taken and
 * nothing is copied twice; a program that interrupts another on the same CPU claims its own place.
 *
 * A position counts bytes since the start. Its chunk is position / DF_CHUNK, modulo the chunks of the CPU. A record
 * begins inside the chunk and may run over its end into the slack; the next one then begins with the next chunk.
 * `size` is written last: until then the reader waits. It zeroes what it has read, so a place that is claimed again
 * has no size, and fields that are zero need no store. Time stamps are taken after the claim: what the reader does
 * not see claimed at a moment is stamped later than that moment. */
#ifndef DF_RING_H
#define DF_RING_H

#include "counters.h"

enum {
	DF_CHUNK = 1 << 17,
	DF_SLACK = 17 << 10, /* sizeof(struct df_data), rounded up */
	DF_TRIES = 4,	     /* a claim is interrupted by as many others at most */
};

/* One CPU's. Both are read for every record: on one line, which the reader takes away once a chunk and when it comes
 * and goes; CPUs have lines of their own, and the one beside it, which is often fetched along. */
struct df_cursor {
	__u64 head; /* where the next record begins */
	__u64 tail; /* what lies before was read */
	__u64 pad[14];
};

struct df_chunk {
	__u8 bytes[DF_CHUNK + DF_SLACK];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* CPUs, set by the loader */
	__type(key, __u32);
	__type(value, struct df_cursor);
} cursors SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* CPUs << chunk_bits, set by the loader */
	__type(key, __u32);
	__type(value, struct df_chunk);
} chunks SEC(".maps");

const volatile __u32 chunk_bits = 0; /* log2 of the chunks of a CPU */

/* An entry here wakes the reader, which otherwise comes when its time is over. What it says does not matter. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} wake SEC(".maps");

/* The ring had `before` bytes and now has `used`: when three quarters are full, the reader has to come. */
static __always_inline void df_wake_reader(__u64 before, __u64 used)
{
	__u64 enough = (3 * (__u64)DF_CHUNK << chunk_bits) / 4;
	if (unlikely(used > enough) && before <= enough)
		bpf_ringbuf_output(&wake, &used, sizeof(used), BPF_RB_FORCE_WAKEUP);
}

/* A place for `size` bytes (a multiple of 8, at most DF_SLACK), all zero; NULL when the ring is full. */
static __always_inline void *df_claim(__u32 size)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct df_cursor *cursor = bpf_map_lookup_elem(&cursors, &cpu);
	if (!cursor)
		return NULL;
	for (int i = 0; i < DF_TRIES; i++) {
		/* The tail first: when others come between the two, it is never beyond the head. */
		__u64 tail = *(volatile __u64 *)&cursor->tail;
		__u64 head = *(volatile __u64 *)&cursor->head;
		__u64 next = head + size;
		if (unlikely((head ^ next) & ~(__u64)(DF_CHUNK - 1)))
			next &= ~(__u64)(DF_CHUNK - 1);
		if (unlikely(next - tail > (__u64)DF_CHUNK << chunk_bits))
			break;
		if (unlikely(__sync_val_compare_and_swap(&cursor->head, head, next) != head))
			continue;
		df_wake_reader(head - tail, next - tail);
		__u32 place = cpu << chunk_bits | ((head / DF_CHUNK) & ((1U << chunk_bits) - 1));
		struct df_chunk *chunk = bpf_map_lookup_elem(&chunks, &place);
		return chunk ? chunk->bytes + (head & (DF_CHUNK - 8)) : NULL;
	}
	df_count(dropped);
	return NULL;
}

/* The record at a claimed place is whole. x86 keeps the order of stores; the compiler has to as well. */
static __always_inline void df_commit(struct df_socket *record, __u32 size)
{
	asm volatile("" ::: "memory");
	*(volatile __u64 *)&record->size = size;
}

#endif
