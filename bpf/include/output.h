/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Totals of each CPU, and the ring of rare records (processes), which nothing wakes. */
#ifndef DF_OUTPUT_H
#define DF_OUTPUT_H

#include "kernel.h"
#include "record.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20); /* set by the loader */
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct df_counters);
} counters SEC(".maps");

static __always_inline struct df_counters *df_totals(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&counters, &zero);
}

#define df_count(member)                                                                                               \
	do {                                                                                                           \
		struct df_counters *t = df_totals();                                                                   \
		if (t)                                                                                                 \
			t->member++;                                                                                   \
	} while (0)

/* A wake-up of the reader would cost more than the capture itself: it reads on a timer. */
static __always_inline void df_output(void *record, __u64 size)
{
	struct df_counters *totals = df_totals();
	long refused = bpf_ringbuf_output(&ring, record, size, BPF_RB_NO_WAKEUP);
	if (!totals)
		return;
	if (refused) {
		totals->dropped++;
	} else {
		totals->records++;
		totals->bytes += size;
	}
}

static __always_inline void df_comm(struct df_header *header, struct task_struct *task)
{
	__u64 *to = (__u64 *)header->comm;
	to[0] = *(__u64 *)&task->comm[0];
	to[1] = *(__u64 *)&task->comm[8];
}

static __always_inline void df_task(struct df_header *header, struct task_struct *task)
{
	header->pid = task->tgid;
	header->tid = task->pid;
	df_comm(header, task);
}

#endif
