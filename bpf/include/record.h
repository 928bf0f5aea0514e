/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Records in the rings; core/src/bpf/record.rs mirrors them. Native byte order, no implicit padding. */
#ifndef DF_RECORD_H
#define DF_RECORD_H

enum df_kind {
	DF_NOTHING = 0, /* the place was claimed in vain */
	DF_DATA = 1,	/* bytes sent or received on a socket */
	DF_CONNECT = 2, /* CLOSE -> SYN_SENT in the task that connects */
	DF_CLOSE = 3,	/* the TCP socket left the tables */
	DF_EXEC = 4,
	DF_FORK = 5,
	DF_EXIT = 6,
};

enum df_direction { DF_EGRESS = 0, DF_INGRESS = 1 };

struct df_header {
	__u64 time_ns; /* CLOCK_BOOTTIME */
	__u32 pid;     /* thread group id */
	__u32 tid;
	__u8 kind;
	__u8 direction;
	__u8 family;   /* 4 or 6 */
	__u8 protocol; /* IPPROTO_TCP, IPPROTO_UDP */
	__u32 netns;   /* inode */
	__u64 cgroup;  /* id in the v2 tree; 0 in DF_CLOSE */
	char comm[16];
};

struct df_socket {
	__u64 size; /* of the whole record, rounded up to 8; 0 until it is written */
	struct df_header h;
	__u64 socket; /* cookie */
	__u32 length; /* bytes of the call */
	__u32 tcp_seq;
	__u16 local_port;
	__u16 remote_port;
	__u16 payload;	/* bytes that follow this struct */
	__u16 flags;	/* enum df_flag */
	__u8 local[16]; /* IPv4 in the first four bytes */
	__u8 remote[16];
};

enum df_flag {
	DF_UNREADABLE = 1, /* the buffer was not resident or the call's arguments do not name it */
	DF_SPENT = 2,	   /* the run's payload budget is used up */
};

struct df_process {
	struct df_header h; /* the new process in DF_FORK; direction, family and protocol are 0 */
	__u32 ppid;
	__u32 uid;
	__s32 exit_code; /* wait status: code << 8 | signal */
	__u32 filename;	 /* bytes that follow this struct, with the final zero */
};

/* Totals of one CPU. */
struct df_counters {
	__u64 dropped;	  /* records: the ring was full */
	__u64 filtered;	  /* calls or messages of a call, of processes, namespaces or ports that were not asked for */
	__u64 quiet;	  /* calls on sockets marked quiet */
	__u64 unreadable; /* payloads that could not be copied */
};

#endif
