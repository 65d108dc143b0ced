// SPDX-License-Identifier: Apache-2.0

package confine

import "golang.org/x/sys/unix"

// newestCall is the last system call that was looked at for these lists.
const newestCall = unix.SYS_MSEAL

// namespaceFlags are those by which clone makes a namespace. Only clone3 knows
// CLONE_NEWTIME.
const namespaceFlags = unix.CLONE_NEWCGROUP | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID |
	unix.CLONE_NEWUSER | unix.CLONE_NEWUTS

// socketType is the part of a socket's type that is no flag.
const socketType = 0xf

// ruled are the calls that are allowed with some arguments only. What a network
// namespace's administrator could do by other sockets, options and ioctls is not
// among them: netlink, raw and packet sockets, iptables' and ipvs' options.
func ruled(setns bool) []rule {
	rules := []rule{
		{unix.SYS_SETSOCKOPT, [][]check{
			{is(1, unix.SOL_SOCKET), is(2, unix.SO_REUSEADDR, unix.SO_REUSEPORT, unix.SO_KEEPALIVE, unix.SO_LINGER,
				unix.SO_SNDBUF, unix.SO_RCVBUF, unix.SO_OOBINLINE, unix.SO_MARK)},
			{is(1, unix.SOL_TCP), is(2, unix.TCP_NODELAY, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT,
				unix.TCP_USER_TIMEOUT, unix.TCP_FASTOPEN, unix.TCP_NOTSENT_LOWAT)},
			{is(1, unix.SOL_IP), is(2, unix.IP_TOS, unix.IP_FREEBIND, unix.IP_TRANSPARENT, unix.IP_BIND_ADDRESS_NO_PORT)},
			{is(1, unix.SOL_IPV6), is(2, unix.IPV6_V6ONLY, unix.IPV6_TCLASS, unix.IPV6_FREEBIND, unix.IPV6_TRANSPARENT)},
		}},
		{unix.SYS_SOCKET, [][]check{
			{is(0, unix.AF_INET, unix.AF_INET6), masked(1, socketType, unix.SOCK_STREAM), is(2, 0, unix.IPPROTO_TCP)},
			// On one of these, Envoy tries whether the kernel knows IP_TRANSPARENT.
			{is(0, unix.AF_INET, unix.AF_INET6), masked(1, socketType, unix.SOCK_DGRAM), is(2, 0, unix.IPPROTO_UDP)},
			{is(0, unix.AF_UNIX), masked(1, socketType, unix.SOCK_STREAM)},
		}},
		{unix.SYS_SOCKETPAIR, [][]check{{is(0, unix.AF_UNIX)}}},
		{unix.SYS_IOCTL, [][]check{{is(1, fionread, fionbio, fioclex, fionclex, unix.TCGETS, unix.TIOCGWINSZ)}}},
		{unix.SYS_PRCTL, [][]check{{is(0, unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_SET_VMA, unix.PR_GET_DUMPABLE,
			unix.PR_GET_NO_NEW_PRIVS, unix.PR_GET_SECCOMP, unix.PR_CAPBSET_READ)}}},
		// Threads, but no processes.
		{unix.SYS_CLONE, [][]check{{masked(0, namespaceFlags|unix.CLONE_THREAD, unix.CLONE_THREAD)}}},
	}
	if setns {
		// Without a type, setns would enter whatever the descriptor is of.
		rules = append(rules, rule{unix.SYS_SETNS, [][]check{{is(1, unix.CLONE_NEWNET)}}})
	}
	return rules
}

// These ioctls have the same numbers on both architectures, and no name in x/sys.
const (
	fionread = 0x541b
	fionbio  = 0x5421
	fionclex = 0x5450
	fioclex  = 0x5451
)

// plain are the calls that are allowed with any arguments, those of every request
// first, which kernels before 5.11 find by going through the list.
func plain() []int {
	calls := []int{
		unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_READ, unix.SYS_WRITE, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_CTL, unix.SYS_FUTEX,
		unix.SYS_SENDTO, unix.SYS_RECVFROM, unix.SYS_SENDMSG, unix.SYS_RECVMSG, unix.SYS_ACCEPT4, unix.SYS_ACCEPT, unix.SYS_CLOSE,
		unix.SYS_CONNECT, unix.SYS_GETSOCKOPT, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME, unix.SYS_SHUTDOWN, unix.SYS_GETTID,
		unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_PWAIT2, unix.SYS_EVENTFD2, unix.SYS_PPOLL,
		unix.SYS_PSELECT6, unix.SYS_PIPE2, unix.SYS_TIMERFD_CREATE, unix.SYS_TIMERFD_SETTIME, unix.SYS_TIMERFD_GETTIME, unix.SYS_SIGNALFD4,
		// Files.
		unix.SYS_OPENAT, unix.SYS_FSTAT, unix.SYS_STATX, unix.SYS_LSEEK, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_FCNTL, unix.SYS_DUP,
		unix.SYS_DUP3, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2, unix.SYS_READLINKAT, unix.SYS_GETCWD, unix.SYS_GETDENTS64,
		unix.SYS_UNLINKAT, unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_FTRUNCATE, unix.SYS_FSTATFS, unix.SYS_STATFS,
		unix.SYS_INOTIFY_INIT1, unix.SYS_INOTIFY_ADD_WATCH, unix.SYS_INOTIFY_RM_WATCH,
		// Memory.
		unix.SYS_MMAP, unix.SYS_MPROTECT, unix.SYS_MUNMAP, unix.SYS_MREMAP, unix.SYS_BRK, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_MEMBARRIER,
		// Threads, signals and time.
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_RT_SIGTIMEDWAIT, unix.SYS_SIGALTSTACK,
		unix.SYS_TGKILL, unix.SYS_KILL, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SCHED_SETAFFINITY,
		unix.SYS_SCHED_GETSCHEDULER, unix.SYS_SCHED_GETPARAM, unix.SYS_GETCPU,
		unix.SYS_SET_TID_ADDRESS, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_RESTART_SYSCALL, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
		unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_GETTIMEOFDAY,
		// The process about itself.
		unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_GETGROUPS, unix.SYS_CAPGET,
		unix.SYS_UNAME, unix.SYS_SYSINFO, unix.SYS_GETRUSAGE, unix.SYS_TIMES, unix.SYS_PRLIMIT64, unix.SYS_GETRANDOM,
		// The first one starts Envoy. It gains nothing by another: the filter stays,
		// and no_new_privs.
		unix.SYS_EXECVE,
	}
	return append(calls, archCalls()...)
}
