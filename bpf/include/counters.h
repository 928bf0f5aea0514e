/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Totals of each CPU. */
#ifndef DF_COUNTERS_H
#define DF_COUNTERS_H

#include "kernel.h"
#include "record.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct df_counters);
} counters SEC(".maps");

#define df_count(member)                                                                                               \
	do {                                                                                                           \
		__u32 zero = 0;                                                                                        \
		struct df_counters *totals = bpf_map_lookup_elem(&counters, &zero);                                    \
		if (totals)                                                                                            \
			totals->member++;                                                                              \
	} while (0)

#endif
