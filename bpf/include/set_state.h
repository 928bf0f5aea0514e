/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Beginning and end of TCP sockets. Included once by each object that hooks sockets. */
#ifndef DF_SET_STATE_H
#define DF_SET_STATE_H

SEC("tp_btf/inet_sock_set_state")
int inet_sock_set_state(__u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	int before = ctx[1], after = ctx[2];
	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (before == TCP_CLOSE && after == TCP_SYN_SENT) {
		struct task_struct *task = bpf_get_current_task_btf();
		__u32 netns = sk->__sk_common.skc_net.net->ns.inum;
		if (!df_wanted_pid(bpf_get_current_pid_tgid() >> 32) || (only_netns && netns != only_netns) ||
		    !df_wanted_ports(sk->__sk_common.skc_num, ntohs(sk->__sk_common.skc_dport))) {
			df_count(filtered);
			return 0;
		}
		struct df_state *state = df_state_of(sk, 1);
		if (!state)
			return 0;
		/* A socket may be used again after its first connection has ended. */
		state->marks = 0;
		df_change(sk, state, DF_CONNECT, task);
	} else if (after == TCP_CLOSE) {
		/* Only of sockets of which something was sent before. */
		struct df_state *state = df_state_of(sk, 0);
		if (!state)
			return 0;
		/* Bytes that the process may still read keep the socket alive for the reader of the records. */
		if (sk->sk_receive_queue.qlen && !(sk->__sk_common.skc_flags & (1 << SOCK_DEAD)))
			return 0;
		df_gone(sk, state);
		df_forget(sk);
	}
	return 0;
}

#endif
