/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* What libbpf's headers would bring, as far as these programs use it: so that clang alone builds them.
 * Helper numbers are kernel ABI (enum bpf_func_id in include/uapi/linux/bpf.h). */
#ifndef DF_HELPERS_H
#define DF_HELPERS_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;

#define SEC(name)	__attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)
#define NULL		((void *)0)

/* Members of a BTF map definition. */
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

/* Keeps the compiler from moving a bound check away from the value it bounds. */
#define pin(value) asm volatile("" : "+r"(value))

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_SK_STORAGE = 24,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_F_NO_PREALLOC = 1,
	BPF_F_MMAPABLE = 1 << 10,
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
	BPF_SK_STORAGE_GET_F_CREATE = 1,
};

struct sock;
struct tcp_sock;
struct task_struct;
struct pt_regs;

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static __u64 (*const bpf_get_current_pid_tgid)(void) = (void *)14;
static __u64 (*const bpf_get_current_uid_gid)(void) = (void *)15;
static __u64 (*const bpf_get_socket_cookie)(void *sk) = (void *)46;
static long (*const bpf_sock_ops_cb_flags_set)(void *ctx, int flags) = (void *)59;
static void *(*const bpf_sk_storage_get)(void *map, void *sk, void *value, __u64 flags) = (void *)107;
static long (*const bpf_probe_read_user)(void *to, __u32 size, const void *from) = (void *)112;
static long (*const bpf_probe_read_kernel)(void *to, __u32 size, const void *from) = (void *)113;
static long (*const bpf_probe_read_kernel_str)(void *to, __u32 size, const void *from) = (void *)115;
static __u64 (*const bpf_get_netns_cookie)(void *ctx) = (void *)122;
static __u64 (*const bpf_ktime_get_boot_ns)(void) = (void *)125;
static long (*const bpf_ringbuf_output)(void *ring, void *data, __u64 size, __u64 flags) = (void *)130;
static struct tcp_sock *(*const bpf_skc_to_tcp_sock)(void *sk) = (void *)137;
static long (*const bpf_store_hdr_opt)(void *ctx, const void *from, __u32 size, __u64 flags) = (void *)143;
static long (*const bpf_reserve_hdr_opt)(void *ctx, __u32 size, __u64 flags) = (void *)144;
static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;
static long (*const bpf_task_pt_regs)(struct task_struct *task) = (void *)175;

#endif
