/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Socket calls by the end of system calls: for kernels without the socket-length tracepoints. The arguments are still
 * in the registers then, so no program is needed at the beginning of a call; every system call of the machine pays. */
#include "include/kernel.h"

#define GET(pointer, member)                                                                                           \
	({                                                                                                             \
		typeof((pointer)->member) value = {};                                                                  \
		bpf_probe_read_kernel((void *)&value, sizeof(value), &(pointer)->member);                              \
		value;                                                                                                 \
	})
#define DF_TCP(sk) ((struct tcp_sock *)(sk))

#include "include/socket.h"

const volatile __u64 identity_key = 1; /* odd and random: kernel addresses must not leave the kernel */

/* By address of the sock: socket storage wants a pointer that the verifier knows. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct df_state);
} states SEC(".maps");

/* As a number: the verifier allows no arithmetic on a pointer that it knows. */
static __always_inline __u64 df_address(struct sock *sk)
{
	__u64 address = 0;
	bpf_probe_read_kernel(&address, sizeof(address), &sk);
	return address;
}

static __always_inline __u64 df_disguised(struct sock *sk)
{
	return (df_address(sk) * identity_key) | (1ULL << 63);
}

static __always_inline struct df_state *df_state_of(struct sock *sk, int create)
{
	__u64 key = (__u64)sk;
	struct df_state *state = bpf_map_lookup_elem(&states, &key);
	if (state || !create)
		return state;
	struct df_state fresh = {};
	/* A cookie may appear later on a socket that has none now: what was chosen first stays its identity. */
	fresh.id = GET(sk, __sk_common.skc_cookie.counter);
	if (!fresh.id)
		fresh.id = df_disguised(sk);
	bpf_map_update_elem(&states, &key, &fresh, 0);
	return bpf_map_lookup_elem(&states, &key);
}

static __always_inline __u64 df_identity(struct sock *sk, struct df_state *state)
{
	return state ? state->id : df_disguised(sk);
}

static __always_inline void df_forget(struct sock *sk)
{
	__u64 key = (__u64)sk; /* the address will be another socket's */
	bpf_map_delete_elem(&states, &key);
}

#include "include/set_state.h"

static __always_inline struct sock *df_socket_of(struct task_struct *task, __u32 fd)
{
	struct fdtable *table = GET(GET(task, files), fdt);
	struct file *file = NULL;
	if (fd >= GET(table, max_fds) || bpf_probe_read_kernel(&file, sizeof(file), GET(table, fd) + fd) || !file)
		return NULL;
	if ((GET(GET(file, f_inode), i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	struct socket *socket = GET(file, private_data);
	return GET(socket, sk);
}

/* A function of its own, so that the verifier goes through it once and not for each message of a vector. */
__attribute__((noinline)) int df_message_out(__u64 sk, __u64 length_direction, __u64 buffer, __u64 vectors, __u64 name)
{
	struct df_call call = {.buffer = buffer, .vectors = vectors, .name = name};
	df_transfer((struct sock *)sk, bpf_get_current_task_btf(), length_direction, length_direction >> 32 & 1, &call);
	return 0;
}

SEC("tp_btf/sys_exit")
int sys_exit(__u64 *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx[0];
	__s64 result = ctx[1];
	if (result <= 0)
		return 0;
	__u8 direction;
	__u32 fd = regs->di;
	__u64 flags = 0;
	switch (regs->orig_ax) {
	case SYS_write:
	case SYS_writev:
	case SYS_pwritev2:
	case SYS_sendto:
	case SYS_sendmsg:
	case SYS_sendmmsg:
	case SYS_sendfile:
		direction = DF_EGRESS;
		break;
	case SYS_splice: /* out of a pipe; the other way is counted when the pipe is read */
		direction = DF_EGRESS;
		fd = regs->dx;
		break;
	case SYS_recvfrom:
	case SYS_recvmmsg:
		flags = regs->r10;
		direction = DF_INGRESS;
		break;
	case SYS_recvmsg:
		flags = regs->dx;
		direction = DF_INGRESS;
		break;
	case SYS_read:
	case SYS_readv:
	case SYS_preadv2:
		direction = DF_INGRESS;
		break;
	default:
		return 0;
	}
	struct task_struct *task = bpf_get_current_task_btf();
	if (task->thread_info.status & TS_COMPAT) /* the numbers mean other calls */
		return 0;
	if (direction == DF_INGRESS && (flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB)))
		return 0;
	struct sock *sk = df_socket_of(task, fd);
	if (!sk)
		return 0;
	__u16 family = GET(sk, __sk_common.skc_family), protocol = GET(sk, sk_protocol);
	if ((family != AF_INET && family != AF_INET6) || (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP))
		return 0;
	if (!df_wanted_task(task))
		return 0;
	struct df_call call = {};
	df_arguments(&call, regs, direction);
	if (direction == DF_INGRESS && (flags & MSG_TRUNC) && protocol == IPPROTO_TCP)
		call.buffer = 0; /* thrown away, not copied */
	__u32 messages = 1, length = result;
	__u64 batch = call.batch;
	if (batch)
		messages = result;
	for (__u32 i = 0; i < DF_BATCH; i++) {
		pin(messages); /* else the two bounds become one that the verifier cannot see */
		if (i >= messages)
			break;
		if (batch) {
			__u64 message = batch + i * sizeof(struct user_mmessage);
			call.buffer = call.vectors = call.name = 0;
			df_message(&call, message);
			if (bpf_probe_read_user(&length, sizeof(length),
						(void *)(message + __builtin_offsetof(struct user_mmessage, length))))
				break;
		}
		df_message_out((__u64)sk, (__u64)direction << 32 | length, call.buffer, call.vectors, call.name);
	}
	return 0;
}

char df_license[] SEC("license") = "Dual BSD/GPL";
