/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What is not asked for is dropped here. Constants are set before loading, so the verifier removes the code of every
 * filter that is not in use. */
#ifndef DF_FILTER_H
#define DF_FILTER_H

#include "counters.h"

enum { DF_INLINE_PIDS = 4, DF_PID_IGNORED = 1, DF_PID_ONLY = 2, DF_PORT_BLACK = 1, DF_PORT_WHITE = 2 };

const volatile __u32 ignored_count = 0; /* of ignored_pids; when they do not fit, the map has them all */
const volatile __u32 ignored_pids[DF_INLINE_PIDS] = {};
const volatile __u32 pid_map_marks = 0;	 /* marks that occur in `pids` */
const volatile __u32 port_map_marks = 0; /* marks that occur in `ports` */
const volatile __u32 only_netns = 0;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set by the loader */
	__type(key, __u32);	/* thread group id */
	__type(value, __u32);	/* marks */
} pids SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set by the loader */
	__type(key, __u32);	/* port, host order */
	__type(value, __u32);	/* marks */
} ports SEC(".maps");

static __always_inline int df_wanted_pid(__u32 pid)
{
#pragma unroll
	for (__u32 i = 0; i < DF_INLINE_PIDS; i++)
		if (i < ignored_count && ignored_pids[i] == pid)
			return 0;
	if (pid_map_marks) {
		__u32 *found = bpf_map_lookup_elem(&pids, &pid);
		__u32 marks = found ? *found : 0;
		if (marks & DF_PID_IGNORED)
			return 0;
		if ((pid_map_marks & DF_PID_ONLY) && !(marks & DF_PID_ONLY))
			return 0;
	}
	return 1;
}

static __always_inline int df_wanted_ports(__u32 local, __u32 remote)
{
	if (!port_map_marks)
		return 1;
	__u32 *a = bpf_map_lookup_elem(&ports, &local), *b = bpf_map_lookup_elem(&ports, &remote);
	__u32 marks = (a ? *a : 0) | (b ? *b : 0);
	if (marks & DF_PORT_BLACK)
		return 0;
	return !(port_map_marks & DF_PORT_WHITE) || (marks & DF_PORT_WHITE);
}

#endif
