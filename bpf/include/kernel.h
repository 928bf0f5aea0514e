/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The few kernel types these programs read. Offsets are relocated against the running kernel's BTF when a program
 * is loaded, so order and gaps here mean nothing; names and nesting do. */
#ifndef DF_KERNEL_H
#define DF_KERNEL_H

#include "helpers.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	__s64 counter;
} atomic64_t;

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	__u32 val;
} kuid_t;

struct ns_common {
	__u32 inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		__u8 u6_addr8[16];
		__u32 u6_addr32[4];
	} in6_u;
};

struct sock_common {
	__u32 skc_daddr;
	__u32 skc_rcv_saddr;
	__u16 skc_dport; /* network order */
	__u16 skc_num;	 /* host order */
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
	unsigned long skc_flags;
};

struct sk_buff_head {
	__u32 qlen;
};

struct file;
struct socket {
	struct file *file;
	struct sock *sk;
};

typedef struct {
	int owned; /* by a task, not by the network's interrupt */
} socket_lock_t;

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	struct sk_buff_head sk_receive_queue;
	struct socket *sk_socket;
	__u16 sk_protocol;
};

struct inet_connection_sock {
	const void *icsk_ulp_ops;
};

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 write_seq;
	__u32 copied_seq;
	__u32 rcv_nxt;
};

struct inode {
	unsigned short i_mode;
};

struct file {
	struct inode *f_inode;
	void *private_data;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct thread_info {
	__u32 status;
};

struct nsproxy {
	struct net *net_ns;
};

struct cred {
	kuid_t uid;
};

struct signal_struct {
	atomic_t live;
	int group_exit_code;
	unsigned int flags;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp; /* in the v2 tree */
};

struct task_struct {
	struct thread_info thread_info;
	unsigned int flags;
	int exit_code;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	const struct cred *cred;
	char comm[16];
	struct files_struct *files;
	void *io_uring;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	struct css_set *cgroups;
};

struct linux_binprm {
	const char *filename;
};

struct pt_regs {
	unsigned long r10;
	unsigned long r9;
	unsigned long r8;
	unsigned long dx;
	unsigned long si;
	unsigned long di;
	unsigned long orig_ax;
};

/* cgroup/recvmsg4 and recvmsg6 (struct bpf_sock_addr in uapi, same offsets: not relocated by the kernel's BTF). */
#pragma clang attribute pop

struct bpf_sock_addr {
	__u32 user_family;
	__u32 user_ip4;
	__u32 user_ip6[4];
	__u32 user_port; /* network order */
	__u32 family;
	__u32 type;
	__u32 protocol;
	__u32 msg_src_ip4;
	__u32 msg_src_ip6[4];
	void *sk __attribute__((aligned(8)));
};

/* sockops (struct bpf_sock_ops in uapi): ABI, likewise. */
struct bpf_sock_ops {
	__u32 op;
	__u32 args[4];
	__u32 family;
	__u32 remote_ip4;
	__u32 local_ip4;
	__u32 remote_ip6[4];
	__u32 local_ip6[4];
	__u32 remote_port;
	__u32 local_port;  /* host order */
	__u32 is_fullsock; /* 0: a request that waits in the listener */
	__u32 snd_cwnd;
	__u32 srtt_us;
	__u32 bpf_sock_ops_cb_flags;
	__u32 state;
	__u32 rtt_min;
	__u32 snd_ssthresh;
	__u32 rcv_nxt;
	__u32 snd_nxt;
	__u32 unread[15];
	__u64 bytes_received;
	__u64 bytes_acked;
	void *sk __attribute__((aligned(8)));
	void *skb_data __attribute__((aligned(8)));
	void *skb_data_end __attribute__((aligned(8)));
	__u32 skb_len;
	__u32 skb_tcp_flags;
};

struct tcphdr {
	__u16 source;
	__u16 dest;
	__u32 seq;
	__u32 ack_seq;
	__u8 offset; /* in words, in the high four bits */
	__u8 flags;
	__u16 window;
	__u16 check;
	__u16 urgent;
};

/* What user space passes to the kernel: ABI, never relocated. */
struct user_iovec {
	__u64 base;
	__u64 length;
};

struct user_message {
	__u64 name;
	__u32 name_length;
	__u32 pad;
	__u64 vector;
	__u64 vector_length;
	__u64 control;
	__u64 control_length;
	__u32 flags;
	__u32 pad2;
};

struct user_mmessage {
	struct user_message message;
	__u32 length; /* bytes, written by the kernel when the message is done */
	__u32 pad;
};

struct user_address {
	__u16 family;
	__u16 port; /* network order */
	__u32 ip4_or_flow;
	__u32 ip6[4];
};

enum {
	AF_INET = 2,
	AF_INET6 = 10,
	IPPROTO_TCP = 6,
	IPPROTO_UDP = 17,
	TCP_SYN_SENT = 2,
	TCP_CLOSE = 7,
	TCP_LISTEN = 10,
	TCP_FLAG_SYN = 0x02,
	SOCK_DEAD = 0, /* enum sock_flags: no process owns the socket any more */
	SOCK_DONE = 1, /* a FIN was received */
	MSG_OOB = 0x1,
	MSG_PEEK = 0x2,
	MSG_TRUNC = 0x20,
	MSG_ERRQUEUE = 0x2000,
	S_IFMT = 0170000,
	S_IFSOCK = 0140000,
	PF_IO_WORKER = 0x10,
	PF_KTHREAD = 0x200000,
	TS_COMPAT = 2, /* thread_info.status: in a 32-bit system call */
};

enum {
	BPF_SOCK_OPS_TCP_CONNECT_CB = 3,
	BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB = 4,
	BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB = 5,
	BPF_SOCK_OPS_STATE_CB = 10,
	BPF_SOCK_OPS_TCP_LISTEN_CB = 11,
	BPF_SOCK_OPS_HDR_OPT_LEN_CB = 14,
	BPF_SOCK_OPS_WRITE_HDR_OPT_CB = 15,
	BPF_SOCK_OPS_STATE_CB_FLAG = 1 << 2,
	BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG = 1 << 6,
	BPF_WRITE_HDR_TCP_CURRENT_MSS = 1,
};

#define ntohs(x) __builtin_bswap16(x)
#define htons(x) __builtin_bswap16(x)
#define ntohl(x) __builtin_bswap32(x)
#define htonl(x) __builtin_bswap32(x)

/* System calls that move bytes of sockets. */
#if defined(__TARGET_ARCH_x86)
enum {
	SYS_read = 0,
	SYS_write = 1,
	SYS_readv = 19,
	SYS_writev = 20,
	SYS_sendfile = 40,
	SYS_sendto = 44,
	SYS_recvfrom = 45,
	SYS_sendmsg = 46,
	SYS_recvmsg = 47,
	SYS_splice = 275,
	SYS_recvmmsg = 299,
	SYS_sendmmsg = 307,
	SYS_preadv2 = 327,
	SYS_pwritev2 = 328,
};
#else
#error "only x86-64 is known: add this architecture's system call numbers and registers"
#endif

#endif
