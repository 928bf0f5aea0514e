/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* TCP option tracing: the sender's process, address and sequence number, as the sender knows them before any NAT, in
 * an experimental option (RFC 6994) of SYN, SYN-ACK and, once a window of bytes, of a data segment. */
#include "include/kernel.h"

const volatile __u32 sampling_window = 16384; /* bytes between two data segments with the option; 0: every one */

enum { DF_KIND = 253, DF_EXPERIMENT = 0xdee9 };

/* All numbers in network order. */
struct df_option {
	__u8 kind;
	__u8 length;
	__u16 experiment;
	__u32 pid;    /* thread group id in the root pid namespace; 0 unknown */
	__u32 source; /* IPv4 address; 0 for IPv6 */
	__u32 seq;    /* of the segment */
};

struct df_traced {
	__u32 pid;
	__u32 due; /* sequence number that the next data segment with the option reaches */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct df_traced);
} traced SEC(".maps");

/* 0.0.0.0 and :: are both zeros, other IPv4 addresses are mapped ones. */
struct df_listener {
	__u64 netns; /* cookie */
	__u32 address[4];
	__u32 port;
	__u32 pad;
};

struct df_listening {
	__u32 pid; /* 0: of several processes */
	__u32 sockets;
};

/* A SYN-ACK is made where no process runs and the listening socket is not at hand. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct df_listener);
	__type(value, struct df_listening);
} listening SEC(".maps");

struct df_option_counters {
	__u64 written;
	__u64 refused; /* no room beside the kernel's own options, or another program's option is there */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct df_option_counters);
} option_counters SEC(".maps");

static __always_inline void df_count(int refused)
{
	__u32 zero = 0;
	struct df_option_counters *counters = bpf_map_lookup_elem(&option_counters, &zero);
	if (counters)
		*(refused ? &counters->refused : &counters->written) += 1;
}

static __always_inline __u32 df_ip4(struct bpf_sock_ops *ctx)
{
	__u32 address = ctx->local_ip4, mapped = ctx->local_ip6[3];
	pin(address); /* the verifier wants each field read at its own fixed place */
	pin(mapped);
	if (ctx->family == AF_INET)
		return address;
	return ctx->local_ip6[0] || ctx->local_ip6[1] || ctx->local_ip6[2] != htonl(0xffff) ? 0 : mapped;
}

static __always_inline void df_listener_of(struct df_listener *key, struct bpf_sock_ops *ctx)
{
	key->netns = bpf_get_netns_cookie(ctx);
	key->port = ctx->local_port;
	key->pad = 0;
	if (ctx->family == AF_INET) {
		key->address[0] = key->address[1] = 0;
		key->address[2] = ctx->local_ip4 ? htonl(0xffff) : 0;
		key->address[3] = ctx->local_ip4;
	} else {
		key->address[0] = ctx->local_ip6[0];
		key->address[1] = ctx->local_ip6[1];
		key->address[2] = ctx->local_ip6[2];
		key->address[3] = ctx->local_ip6[3];
	}
}

static __always_inline __u32 df_listening_pid(struct bpf_sock_ops *ctx)
{
	struct df_listener key;
	df_listener_of(&key, ctx);
	struct df_listening *found = bpf_map_lookup_elem(&listening, &key);
	if (!found) {
		key.address[0] = key.address[1] = key.address[2] = key.address[3] = 0;
		found = bpf_map_lookup_elem(&listening, &key);
	}
	return found ? found->pid : 0;
}

static __always_inline void df_listens(struct bpf_sock_ops *ctx, int begins)
{
	struct df_listener key;
	struct df_listening fresh = {.pid = bpf_get_current_pid_tgid() >> 32, .sockets = 1};
	df_listener_of(&key, ctx);
	struct df_listening *known = bpf_map_lookup_elem(&listening, &key);
	if (!begins) {
		if (known && known->sockets > 1)
			known->sockets--;
		else if (known)
			bpf_map_delete_elem(&listening, &key);
	} else if (known) {
		known->sockets++;
		if (known->pid != fresh.pid)
			known->pid = 0;
	} else {
		bpf_map_update_elem(&listening, &key, &fresh, 0);
	}
}

/* The socket's state, with the process that works on it now. A socket that a task has locked is used in that task and
 * nowhere else; otherwise this runs on behalf of the network, in whatever task it interrupted. */
static __always_inline struct df_traced *df_traced_of(struct bpf_sock_ops *ctx, int create)
{
	void *socket = ctx->sk;
	pin(socket); /* read once: the verifier forgets that another reading is not null */
	if (!socket)
		return NULL;
	struct df_traced *state = bpf_sk_storage_get(&traced, socket, NULL, create ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	struct sock *sk = (struct sock *)bpf_skc_to_tcp_sock(socket);
	if (state && sk && sk->sk_lock.owned) {
		struct task_struct *task = bpf_get_current_task_btf();
		if (!(task->flags & PF_KTHREAD))
			state->pid = task->tgid;
	}
	return state;
}

static __always_inline void df_follow(struct bpf_sock_ops *ctx, int flags)
{
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | flags);
}

static __always_inline void df_established(struct bpf_sock_ops *ctx, int passive)
{
	struct df_traced *state = df_traced_of(ctx, 1);
	if (!state)
		return;
	state->due = ctx->snd_nxt;
	if (passive) {
		if (!state->pid)
			state->pid = df_listening_pid(ctx);
		df_follow(ctx, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
	}
}

static __always_inline void df_reserve(struct bpf_sock_ops *ctx)
{
	/* When the size of segments is computed, always: so that one with the option does not exceed the path's. */
	if (ctx->args[0] != BPF_WRITE_HDR_TCP_CURRENT_MSS && !(ctx->skb_tcp_flags & TCP_FLAG_SYN)) {
		__u32 payload = ctx->skb_len; /* no header yet */
		struct df_traced *state = df_traced_of(ctx, 0);
		if (!payload || !state || (__s32)(ctx->snd_nxt + payload - state->due) <= 0)
			return;
	}
	if (bpf_reserve_hdr_opt(ctx, sizeof(struct df_option), 0) && ctx->args[0] != BPF_WRITE_HDR_TCP_CURRENT_MSS)
		df_count(1);
}

static __always_inline void df_write(struct bpf_sock_ops *ctx)
{
	struct tcphdr *header = ctx->skb_data;
	if ((void *)(header + 1) > ctx->skb_data_end)
		return;
	struct df_traced *state = df_traced_of(ctx, 0);
	__u32 end = ntohl(header->seq) + ctx->skb_len - (header->offset >> 4) * 4;
	int data = state && !(ctx->skb_tcp_flags & TCP_FLAG_SYN);
	int due = data && (__s32)(end - state->due) > 0;
	/* Room was made for what the socket sends next; a segment that is sent again lies before it. */
	if (sampling_window && data && !due)
		return;
	struct df_option option = {.kind = DF_KIND, .length = sizeof(option), .experiment = htons(DF_EXPERIMENT)};
	option.pid = htonl(state ? state->pid : ctx->is_fullsock ? 0 : df_listening_pid(ctx));
	option.source = df_ip4(ctx);
	option.seq = header->seq;
	df_count(bpf_store_hdr_opt(ctx, &option, sizeof(option), 0) != 0);
	/* Refused is done, too: then another program has written it. */
	if (!due)
		return;
	if (sampling_window)
		state->due += ((end - state->due - 1) / sampling_window + 1) * sampling_window;
	else
		state->due = end;
}

/* Answers (`reply`) stay as they are: another program of the cgroup may give them. */
SEC("sockops")
int trace_options(struct bpf_sock_ops *ctx)
{
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		if (df_traced_of(ctx, 1))
			df_follow(ctx, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		df_listens(ctx, 1);
		df_follow(ctx, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[0] == TCP_LISTEN && ctx->args[1] == TCP_CLOSE)
			df_listens(ctx, 0);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		df_established(ctx, 0);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		df_established(ctx, 1);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		df_reserve(ctx);
		break;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		df_write(ctx);
		break;
	}
	return 1;
}

char df_license[] SEC("license") = "Dual BSD/GPL";
