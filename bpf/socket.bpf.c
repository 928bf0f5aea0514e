/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Socket calls by the socket-length tracepoints (kernel 6.3): they fire on sockets alone, at the end of the call, in
 * the task that made it; every other system call stays untouched. */
#include "include/kernel.h"

#define GET(pointer, member) ((pointer)->member)
#define DF_TCP(sk)	     bpf_skc_to_tcp_sock(sk)

#include "include/socket.h"

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct df_state);
} states SEC(".maps");

/* How far thread `key` has come in its sendmmsg or recvmmsg: the hook fires for each message of the vector. */
struct df_batch {
	__u64 vector;
	__u64 done;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct df_batch);
} batches SEC(".maps");

static __always_inline struct df_state *df_state_of(struct sock *sk, int create)
{
	return bpf_sk_storage_get(&states, sk, NULL, create ? BPF_SK_STORAGE_GET_F_CREATE : 0);
}

static __always_inline __u64 df_identity(struct sock *sk, struct df_state *state)
{
	__u64 cookie = sk->__sk_common.skc_cookie.counter;
	return likely(cookie) ? cookie : bpf_get_socket_cookie(sk);
}

static __always_inline void df_batch_ended(void)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct df_batch *batch = bpf_map_lookup_elem(&batches, &thread);
	if (batch)
		batch->vector = 0;
}

static __always_inline void df_next_of_batch(struct df_call *call)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct df_batch *batch = bpf_map_lookup_elem(&batches, &thread);
	__u64 index = 0;
	if (batch && batch->vector == call->batch && batch->done < call->batch_length)
		index = batch->done;
	struct df_batch next = {.vector = call->batch, .done = index + 1};
	if (next.done >= call->batch_length)
		next.vector = 0;
	if (batch)
		*batch = next;
	else
		bpf_map_update_elem(&batches, &thread, &next, 0);
	df_message(call, call->batch + index * sizeof(struct user_mmessage));
}

/* A task with io_uring may be sending on behalf of a ring entry while its registers tell of another call: only
 * trust them when they name this socket. */
static __always_inline int df_names_socket(struct task_struct *task, struct pt_regs *regs, struct sock *sk)
{
	struct fdtable *table = task->files->fdt;
	__u32 fd = regs->di;
	struct file *file = NULL;
	if (fd >= table->max_fds || bpf_probe_read_kernel(&file, sizeof(file), table->fd + fd))
		return 0;
	return file == sk->sk_socket->file;
}

/* `result` bytes went over sk in this task: sends a record, with what the task's registers say of the call. */
static __always_inline void df_call_of_task(struct sock *sk, struct task_struct *task, int result, int flags,
					    __u16 protocol, __u8 direction)
{
	struct df_call call = {};
	if (!(task->flags & (PF_KTHREAD | PF_IO_WORKER)) && !(task->thread_info.status & TS_COMPAT)) {
		struct pt_regs *regs = (void *)bpf_task_pt_regs(task);
		if (likely(!task->io_uring) || df_names_socket(task, regs, sk))
			df_arguments(&call, regs, direction);
	}
	if (unlikely(call.batch))
		df_next_of_batch(&call);
	if (direction == DF_INGRESS) {
		call.name = 0; /* written only after this hook: see recvmsg4 */
		if (flags & MSG_TRUNC && protocol == IPPROTO_TCP)
			call.buffer = 0; /* thrown away, not copied */
	}
	df_transfer(sk, task, result, direction, &call);
}

static __always_inline int df_socket_call(struct sock *sk, int result, int flags, __u8 direction)
{
	__u16 family = sk->__sk_common.skc_family;
	if (family != AF_INET && family != AF_INET6)
		return 0;
	__u16 protocol = sk->sk_protocol;
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return 0;
	if (direction == DF_INGRESS && (flags & (MSG_PEEK | MSG_ERRQUEUE)))
		return 0;
	if (unlikely(result <= 0)) {
		if (protocol == IPPROTO_UDP)
			df_batch_ended();
	} else {
		if (unlikely(flags & MSG_OOB))
			return 0;
		if (unlikely(!sk->sk_socket->file)) /* the kernel's own socket: no process talks here */
			return 0;
		struct task_struct *task = bpf_get_current_task_btf();
		if (likely(df_wanted_task(task)))
			df_call_of_task(sk, task, result, flags, protocol, direction);
	}
	/* The peer reset or closed while bytes were still unread: the end was held back until now. */
	if (direction == DF_INGRESS && protocol == IPPROTO_TCP && unlikely(sk->__sk_common.skc_state == TCP_CLOSE) &&
	    !sk->sk_receive_queue.qlen) {
		struct df_state *state = df_state_of(sk, 0);
		if (state)
			df_gone(sk, state);
	}
	return 0;
}

SEC("tp_btf/sock_send_length")
int sock_send_length(__u64 *ctx)
{
	return df_socket_call((struct sock *)ctx[0], ctx[1], ctx[2], DF_EGRESS);
}

SEC("tp_btf/sock_recv_length")
int sock_recv_length(__u64 *ctx)
{
	return df_socket_call((struct sock *)ctx[0], ctx[1], ctx[2], DF_INGRESS);
}

static __always_inline void df_forget(struct sock *sk)
{
	/* the storage dies with the socket */
}

#include "include/set_state.h"

/* Who sent the datagram that a task is about to receive on a socket that is not connected. The kernel writes the
 * address to the user's memory only after sock_recv_length; this program sees it before, at the price of UDP alone. */
static __always_inline int df_datagram_from(struct bpf_sock_addr *ctx, __u32 family)
{
	void *sk = ctx->sk;
	if (!sk)
		return 1;
	struct df_state *state = bpf_sk_storage_get(&states, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!state)
		return 1;
	if (family == AF_INET) {
		state->peer[3] = ctx->user_ip4;
	} else {
		state->peer[0] = ctx->user_ip6[0];
		state->peer[1] = ctx->user_ip6[1];
		state->peer[2] = ctx->user_ip6[2];
		state->peer[3] = ctx->user_ip6[3];
	}
	state->peer_family = family;
	state->peer_port = ctx->user_port;
	state->peer_tid = bpf_get_current_pid_tgid();
	return 1;
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	return df_datagram_from(ctx, AF_INET);
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	return df_datagram_from(ctx, AF_INET6);
}

char df_license[] SEC("license") = "Dual BSD/GPL";
