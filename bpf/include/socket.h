/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Records of sockets, shared by the two ways to hook them. Before including this, an object defines
 *   GET(pointer, member)   how it reads kernel memory,
 *   DF_TCP(sk)             sk as a struct tcp_sock,
 * and afterwards struct df_state *df_state_of(struct sock *, int create) and __u64 df_identity(struct sock *, struct
 * df_state *). */
#ifndef DF_SOCKET_H
#define DF_SOCKET_H

#include "call.h"
#include "filter.h"
#include "ring.h"
#include "task.h"

const volatile __u32 payload_truncation = 1024; /* payload bytes of one record, at most DF_CAPTURE_MAX */
const volatile __u32 run_budget = 16384;	/* payload bytes of a run: TCP data of one direction until it changes */

enum { DF_QUIET = 1, DF_GONE = 2, DF_BEGUN = 4 };

struct df_state {
	__u64 id;	/* only where the cookie cannot be asked for */
	__u32 spent;	/* payload bytes sent in this run */
	__u32 epoch;	/* of `quiet_epoch` when `quiet` was last asked */
	__u8 direction; /* of the run */
	__u8 marks;
	__u16 peer_port; /* network order; who sent the datagram that thread peer_tid is receiving */
	__u32 peer_tid;
	__u32 peer_family;
	__u32 peer[4];
};

/* User space marks a socket here and moves the epoch on; the mark then settles in the socket's state. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u32);
} quiet SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} quiet_epoch SEC(".maps");

static __always_inline struct df_state *df_state_of(struct sock *sk, int create);
static __always_inline __u64 df_identity(struct sock *sk, struct df_state *state);

static __always_inline int df_is_quiet(struct df_state *state, __u64 identity)
{
	__u32 zero = 0;
	__u32 *epoch = bpf_map_lookup_elem(&quiet_epoch, &zero);
	if (epoch && unlikely(state->epoch != *epoch)) {
		state->epoch = *epoch;
		if (bpf_map_lookup_elem(&quiet, &identity))
			state->marks |= DF_QUIET;
	}
	return state->marks & DF_QUIET;
}

/* ::ffff:a.b.c.d */
static __always_inline int df_mapped(const __u32 *a)
{
	return !a[0] && !a[1] && a[2] == 0xffff0000;
}

static __always_inline void df_ip4(struct df_socket *record, __u32 local, __u32 remote)
{
	__u32 *l = (__u32 *)record->local, *r = (__u32 *)record->remote;
	record->h.family = 4;
	l[0] = local;
	r[0] = remote;
	l[1] = l[2] = l[3] = r[1] = r[2] = r[3] = 0;
}

/* A dual-stack socket that talks IPv4 is reported as IPv4. */
static __always_inline void df_as_ip4_if_mapped(struct df_socket *record)
{
	__u32 *l = (__u32 *)record->local, *r = (__u32 *)record->remote;
	int remote_unknown = !(r[0] | r[1] | r[2] | r[3]);
	if (df_mapped(r) || (remote_unknown && df_mapped(l)))
		df_ip4(record, df_mapped(l) ? l[3] : 0, remote_unknown ? 0 : r[3]);
}

static __always_inline void df_addresses(struct df_socket *record, struct sock *sk, __u16 family, __u16 local_port,
					 __u16 remote_port)
{
	record->local_port = local_port;
	record->remote_port = remote_port;
	if (likely(family == AF_INET)) { /* the rest of the place is zero */
		record->h.family = 4;
		*(__u32 *)record->local = GET(sk, __sk_common.skc_rcv_saddr);
		*(__u32 *)record->remote = GET(sk, __sk_common.skc_daddr);
		return;
	}
	__u32 *l = (__u32 *)record->local, *r = (__u32 *)record->remote;
	record->h.family = 6;
	l[0] = GET(sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[0]);
	l[1] = GET(sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[1]);
	l[2] = GET(sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[2]);
	l[3] = GET(sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[3]);
	r[0] = GET(sk, __sk_common.skc_v6_daddr.in6_u.u6_addr32[0]);
	r[1] = GET(sk, __sk_common.skc_v6_daddr.in6_u.u6_addr32[1]);
	r[2] = GET(sk, __sk_common.skc_v6_daddr.in6_u.u6_addr32[2]);
	r[3] = GET(sk, __sk_common.skc_v6_daddr.in6_u.u6_addr32[3]);
	df_as_ip4_if_mapped(record);
}

/* The peer of one datagram on a socket that is not connected. */
static __always_inline void df_peer(struct df_socket *record, __u16 family, __u16 port, __u32 ip4, const __u32 *ip6)
{
	__u32 *l = (__u32 *)record->local, *r = (__u32 *)record->remote;
	if (family == AF_INET) {
		df_ip4(record, record->h.family == 4 || df_mapped(l) ? l[record->h.family == 4 ? 0 : 3] : 0, ip4);
	} else if (family == AF_INET6) {
		if (record->h.family == 4) { /* back to the form of the socket */
			l[1] = 0;
			l[3] = l[0];
			l[2] = l[0] ? 0xffff0000 : 0;
			l[0] = 0;
		}
		record->h.family = 6;
		r[0] = ip6[0];
		r[1] = ip6[1];
		r[2] = ip6[2];
		r[3] = ip6[3];
		df_as_ip4_if_mapped(record);
	} else {
		return;
	}
	record->remote_port = ntohs(port);
}

static __always_inline void df_user_peer(struct df_socket *record, __u64 name)
{
	struct user_address a;
	if (bpf_probe_read_user(&a, sizeof(a), (void *)name)) {
		a.ip6[0] = 0; /* sockaddr_in is shorter: it may end at the end of its page */
		if (bpf_probe_read_user(&a, 8, (void *)name) || a.family != AF_INET)
			return;
	}
	df_peer(record, a.family, a.port, a.ip4_or_flow, a.ip6);
}

/* Number of the first byte of `length` bytes that were just sent or received. */
static __always_inline __u32 df_sequence(struct sock *sk, __u32 length, __u8 direction)
{
	struct tcp_sock *tcp = DF_TCP(sk);
	if (!tcp)
		return 0;
	if (direction == DF_EGRESS)
		return GET(tcp, write_seq) - length;
	__u32 copied = GET(tcp, copied_seq);
	/* A FIN takes a number too, and may have been taken off the queue together with the last bytes. */
	if (unlikely(GET(sk, __sk_common.skc_flags) & (1 << SOCK_DONE)) && copied == GET(tcp, rcv_nxt))
		copied--;
	return copied - length;
}

/* Are the calls of this task asked for? */
static __always_inline int df_wanted_task(struct task_struct *task)
{
	if (df_wanted_pid(task->tgid))
		return 1;
	df_count(filtered);
	return 0;
}

/* One message: `length` bytes went over sk in this task, whose calls are asked for. */
static __always_inline void df_transfer(struct sock *sk, struct task_struct *task, __u32 length, __u8 direction,
					const struct df_call *call)
{
	__u16 protocol = GET(sk, sk_protocol);
	struct net *net = GET(sk, __sk_common.skc_net.net);
	__u32 netns = GET(net, ns.inum);
	__u16 local_port = GET(sk, __sk_common.skc_num), remote_port = ntohs(GET(sk, __sk_common.skc_dport));
	if ((only_netns && netns != only_netns) || (remote_port && !df_wanted_ports(local_port, remote_port))) {
		df_count(filtered);
		return;
	}
	struct df_state *state = df_state_of(sk, 1);
	__u64 identity = df_identity(sk, state);
	if (likely(state) && unlikely(df_is_quiet(state, identity))) {
		df_count(quiet);
		return;
	}
	__u32 want = length < payload_truncation ? length : payload_truncation;
	__u16 flags = 0;
	/* A datagram is a message of its own; a stream's payload is sent for the beginning of a run. */
	if (state && protocol == IPPROTO_TCP) {
		if (!(state->marks & DF_BEGUN) || state->direction != direction) {
			state->marks |= DF_BEGUN;
			state->direction = direction;
			state->spent = 0;
		}
		if (unlikely(state->spent >= run_budget)) {
			want = 0;
			flags = DF_SPENT;
		}
	}
	if (want && !call->buffer) {
		want = 0;
		flags = DF_UNREADABLE;
	}
	pin(want);
	if (want > DF_CAPTURE_MAX)
		want = DF_CAPTURE_MAX;
	__u32 size = (sizeof(struct df_socket) + want + 7) & ~7U;
	struct df_data *data = df_claim(size);
	if (unlikely(!data))
		return;
	struct df_socket *record = &data->record;
	record->h.time_ns = bpf_ktime_get_boot_ns();
	df_addresses(record, sk, GET(sk, __sk_common.skc_family), local_port, remote_port);
	record->h.kind = DF_DATA;
	if (unlikely(protocol == IPPROTO_UDP) && !remote_port) {
		if (state && state->peer_tid == (__u32)task->pid && direction == DF_INGRESS) {
			state->peer_tid = 0;
			df_peer(record, state->peer_family, state->peer_port, state->peer[3], state->peer);
		} else if (call->name) {
			df_user_peer(record, call->name);
		}
		if (!df_wanted_ports(record->local_port, record->remote_port)) {
			df_count(filtered);
			record->h.kind = DF_NOTHING;
			want = 0;
		}
	}
	__u32 got = want ? df_payload(data, want, call) : 0;
	if (unlikely(got < want)) {
		flags |= DF_UNREADABLE;
		df_count(unreadable);
	}
	if (state)
		state->spent += got;
	record->socket = identity;
	record->h.direction = direction;
	record->h.protocol = protocol;
	record->h.netns = netns;
	record->length = length;
	record->tcp_seq = protocol == IPPROTO_TCP ? df_sequence(sk, length, direction) : 0;
	record->payload = got;
	record->flags = flags;
	df_task(&record->h, task);
	df_commit(record, size);
}

/* DF_CONNECT or DF_CLOSE. A socket's end may be seen by any task or none: task is NULL then. */
static __always_inline void df_change(struct sock *sk, struct df_state *state, __u8 kind, struct task_struct *task)
{
	struct df_socket *record = df_claim(sizeof(*record));
	if (!record)
		return;
	record->h.time_ns = bpf_ktime_get_boot_ns();
	df_addresses(record, sk, GET(sk, __sk_common.skc_family), GET(sk, __sk_common.skc_num),
		     ntohs(GET(sk, __sk_common.skc_dport)));
	record->h.kind = kind;
	record->h.protocol = IPPROTO_TCP;
	record->h.netns = GET(GET(sk, __sk_common.skc_net.net), ns.inum);
	record->socket = df_identity(sk, state);
	if (task)
		df_task(&record->h, task);
	df_commit(record, sizeof(*record));
}

static __always_inline void df_gone(struct sock *sk, struct df_state *state)
{
	if (state->marks & DF_GONE)
		return;
	state->marks |= DF_GONE;
	df_change(sk, state, DF_CLOSE, NULL);
}

#endif
