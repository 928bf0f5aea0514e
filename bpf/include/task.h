/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The task that a record names. */
#ifndef DF_TASK_H
#define DF_TASK_H

#include "kernel.h"
#include "record.h"

static __always_inline void df_task(struct df_header *header, struct task_struct *task)
{
	header->pid = task->tgid;
	header->tid = task->pid;
	header->cgroup = task->cgroups->dfl_cgrp->kn->id; /* the helper for it costs some 10 ns more */
	__u64 *comm = (__u64 *)header->comm;
	comm[0] = *(__u64 *)&task->comm[0];
	comm[1] = *(__u64 *)&task->comm[8];
}

#endif
