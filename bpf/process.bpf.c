/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Beginning and end of processes. Threads are not reported. */
#include "include/counters.h"
#include "include/task.h"

enum { DF_FILENAME = 256, SIGNAL_GROUP_EXIT = 4 };

struct df_event {
	struct df_process record;
	char filename[DF_FILENAME];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} processes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct df_event);
} event_scratch SEC(".maps");

/* A wake-up of the reader would cost more than the capture itself: it reads on a timer. */
static __always_inline void df_output(void *record, __u64 size)
{
	if (bpf_ringbuf_output(&processes, record, size, BPF_RB_NO_WAKEUP))
		df_count(dropped);
}

static __always_inline void df_process_of(struct df_process *record, struct task_struct *task, __u8 kind)
{
	record->h.time_ns = bpf_ktime_get_boot_ns();
	df_task(&record->h, task);
	record->h.kind = kind;
	record->h.direction = record->h.family = record->h.protocol = 0;
	record->h.netns = 0;
	if (task->nsproxy) /* given up before the end of the task */
		record->h.netns = task->nsproxy->net_ns->ns.inum;
	record->ppid = task->real_parent->tgid;
	record->uid = task->cred->uid.val;
	record->exit_code = 0;
	record->filename = 0;
}

SEC("tp_btf/sched_process_exec")
int sched_process_exec(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	struct linux_binprm *program = (struct linux_binprm *)ctx[2];
	__u32 zero = 0;
	struct df_event *event = bpf_map_lookup_elem(&event_scratch, &zero);
	if (!event)
		return 0;
	df_process_of(&event->record, task, DF_EXEC);
	long length = bpf_probe_read_kernel_str(event->filename, DF_FILENAME, program->filename);
	__u32 bytes = length > 0 ? length : 0;
	pin(bytes);
	if (bytes > DF_FILENAME)
		bytes = DF_FILENAME;
	event->record.filename = bytes;
	df_output(event, sizeof(struct df_process) + bytes);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int sched_process_fork(__u64 *ctx)
{
	struct task_struct *child = (struct task_struct *)ctx[1];
	struct df_process record;
	if (child->pid != child->tgid)
		return 0;
	df_process_of(&record, child, DF_FORK);
	df_output(&record, sizeof(record));
	return 0;
}

static __always_inline void df_exit(struct task_struct *task)
{
	struct df_process record;
	df_process_of(&record, task, DF_EXIT);
	struct signal_struct *signal = task->signal;
	record.exit_code = signal->flags & SIGNAL_GROUP_EXIT ? signal->group_exit_code : task->exit_code;
	df_output(&record, sizeof(record));
}

/* The second argument, "last thread of its group", is not there on older kernels: then the other one loads. */
SEC("tp_btf/sched_process_exit")
int sched_process_exit(__u64 *ctx)
{
	if (ctx[1])
		df_exit((struct task_struct *)ctx[0]);
	return 0;
}

/* Two last threads that end at the same moment may both be taken for the last. */
SEC("tp_btf/sched_process_exit")
int sched_process_exit_live(__u64 *ctx)
{
	struct task_struct *task = (struct task_struct *)ctx[0];
	if (!task->signal->live.counter)
		df_exit(task);
	return 0;
}

char df_license[] SEC("license") = "Dual BSD/GPL";
