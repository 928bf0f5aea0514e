/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The user's buffer and address of a socket call, out of the registers with which the task entered the kernel. They
 * are still there when the call ends: the kernel changes only the register of the result. */
#ifndef DF_CALL_H
#define DF_CALL_H

#include "kernel.h"
#include "record.h"

enum {
	DF_SEGMENTS = 64,      /* of an iovec array; gRPC writes every header in slices of its own */
	DF_AT_ONCE = 3,	       /* of them that are read at once */
	DF_BATCH = 8,	       /* messages of one sendmmsg or recvmmsg (system call hook) */
	DF_CAPTURE_MAX = 8192, /* payload bytes of a record; a power of two */
};

struct df_call {
	__u64 buffer; /* flat when vectors is 0, else an array of iovec; 0 unknown */
	__u64 vectors;
	__u64 name;  /* sockaddr of the peer, 0 none */
	__u64 batch; /* mmsghdr array of sendmmsg and recvmmsg */
	__u32 batch_length;
};

static __always_inline void df_message(struct df_call *call, __u64 user)
{
	struct user_message m;
	if (bpf_probe_read_user(&m, sizeof(m), (void *)user))
		return;
	call->buffer = m.vector;
	call->vectors = m.vector_length;
	call->name = m.name;
}

/* Nothing is set when the call is none that names a buffer in this direction: sendfile, splice, io_uring. */
static __always_inline void df_arguments(struct df_call *call, struct pt_regs *regs, __u8 direction)
{
	if (direction == DF_EGRESS) {
		switch (regs->orig_ax) {
		case SYS_write:
			call->buffer = regs->si;
			break;
		case SYS_sendto:
			call->buffer = regs->si;
			call->name = regs->r8;
			break;
		case SYS_writev:
		case SYS_pwritev2:
			call->buffer = regs->si;
			call->vectors = regs->dx;
			break;
		case SYS_sendmsg:
			df_message(call, regs->si);
			break;
		case SYS_sendmmsg:
			call->batch = regs->si;
			call->batch_length = regs->dx;
			break;
		}
	} else {
		switch (regs->orig_ax) {
		case SYS_read:
			call->buffer = regs->si;
			break;
		case SYS_recvfrom:
			call->buffer = regs->si;
			call->name = regs->r8;
			break;
		case SYS_readv:
		case SYS_preadv2:
			call->buffer = regs->si;
			call->vectors = regs->dx;
			break;
		case SYS_recvmsg:
			df_message(call, regs->si);
			break;
		case SYS_recvmmsg:
			call->batch = regs->si;
			call->batch_length = regs->dx;
			break;
		}
	}
}

struct df_data {
	struct df_socket record;
	__u8 payload[2 * DF_CAPTURE_MAX]; /* twice: a segment that starts below the bound may be that long */
};

/* Copies the bytes of one more segment; 0 when that is the last that can be had. */
static __always_inline int df_segment(struct df_data *data, volatile __u16 *filled, const struct user_iovec *v,
				      __u32 want)
{
	__u32 at = *filled;
	if (at >= want)
		return 0;
	__u32 take = want - at;
	if (v->length < take)
		take = v->length;
	pin(at);
	at &= DF_CAPTURE_MAX - 1;
	pin(take);
	if (take > DF_CAPTURE_MAX)
		take = DF_CAPTURE_MAX;
	if (bpf_probe_read_user(data->payload + at, take, (void *)v->base))
		return 0;
	*filled = at + take;
	return 1;
}

/* Copies up to `want` bytes of an array of iovec; returns how many were readable. A function of its own, so that the
 * verifier goes through the loop once and not for each way that leads to it. The count is kept in the record, of whose
 * contents the verifier knows nothing: in a register it would make every way through the loop another state. Bounds
 * are pinned and tested next to each copy, where the verifier wants to see them. The first elements are read at once:
 * it is the number of reads that costs, not their length. */
__attribute__((noinline)) __u32 df_gather(struct df_data *data, __u64 vector, __u64 vectors, __u32 want)
{
	if (!data)
		return 0;
	volatile __u16 *filled = &data->record.payload;
	*filled = 0;
	/* Set to zero for verifiers before kernel 6.3, which refuse a read of variable length into what was not. */
	struct user_iovec first[DF_AT_ONCE] = {};
	__u32 count = vectors < DF_AT_ONCE ? vectors : DF_AT_ONCE;
	pin(count);
	if (count > DF_AT_ONCE)
		count = DF_AT_ONCE;
	if (bpf_probe_read_user(first, count * sizeof(first[0]), (void *)vector))
		return 0;
#pragma unroll
	for (__u32 i = 0; i < DF_AT_ONCE; i++)
		if (i >= count || !df_segment(data, filled, &first[i], want))
			return *filled;
	for (__u32 i = DF_AT_ONCE; i < DF_SEGMENTS; i++) {
		struct user_iovec v;
		if (i >= vectors || *filled >= want)
			break;
		if (bpf_probe_read_user(&v, sizeof(v), (void *)(vector + i * sizeof(v))))
			break;
		if (!df_segment(data, filled, &v, want))
			break;
	}
	return *filled;
}

static __always_inline __u32 df_payload(struct df_data *data, __u32 want, const struct df_call *call)
{
	if (!call->buffer)
		return 0;
	if (call->vectors)
		return df_gather(data, call->buffer, call->vectors, want);
	pin(want);
	if (want > DF_CAPTURE_MAX)
		want = DF_CAPTURE_MAX;
	return bpf_probe_read_user(data->payload, want, (void *)call->buffer) ? 0 : want;
}

#endif
