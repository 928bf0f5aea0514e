/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Empty programs of each kind, for `deepflow doctor` to try. */
#include "include/helpers.h"

SEC("fentry/tcp_sendmsg")
int probe_fentry(void *ctx)
{
	return 0;
}

SEC("kprobe")
int probe_kprobe(void *ctx)
{
	return 0;
}

SEC("uprobe")
int probe_uprobe(void *ctx)
{
	return 0;
}

SEC("perf_event")
int probe_perf_event(void *ctx)
{
	return 0;
}

char df_license[] SEC("license") = "Dual BSD/GPL";
