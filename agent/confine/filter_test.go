// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"encoding/binary"
	"fmt"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// answer runs the filter on a system call, as the kernel would.
func answer(t *testing.T, setns bool, arch uint32, number int, args ...uint64) uint32 {
	t.Helper()
	instructions, err := program(auditArch, ruled(setns), plain())
	if err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	// The VM reads words in network order, the kernel those of the machine.
	data := binary.BigEndian.AppendUint32(nil, uint32(number))
	data = binary.BigEndian.AppendUint32(data, arch)
	data = append(data, make([]byte, 8)...)
	for i := range 6 {
		var arg uint64
		if i < len(args) {
			arg = args[i]
		}
		data = binary.BigEndian.AppendUint32(data, uint32(arg))
		data = binary.BigEndian.AppendUint32(data, uint32(arg>>32))
	}
	got, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(got)
}

// forbidden are calls that no program in Envoy's place is to make, whatever their
// arguments.
func forbidden() map[string]int {
	return map[string]int{
		"mount": unix.SYS_MOUNT, "umount2": unix.SYS_UMOUNT2, "pivot_root": unix.SYS_PIVOT_ROOT, "chroot": unix.SYS_CHROOT,
		"fsopen": unix.SYS_FSOPEN, "fsconfig": unix.SYS_FSCONFIG, "fsmount": unix.SYS_FSMOUNT, "fspick": unix.SYS_FSPICK,
		"open_tree": unix.SYS_OPEN_TREE, "move_mount": unix.SYS_MOVE_MOUNT, "mount_setattr": unix.SYS_MOUNT_SETATTR,
		"bpf": unix.SYS_BPF, "perf_event_open": unix.SYS_PERF_EVENT_OPEN, "userfaultfd": unix.SYS_USERFAULTFD,
		"ptrace": unix.SYS_PTRACE, "process_vm_readv": unix.SYS_PROCESS_VM_READV, "process_vm_writev": unix.SYS_PROCESS_VM_WRITEV,
		"pidfd_open": unix.SYS_PIDFD_OPEN, "pidfd_getfd": unix.SYS_PIDFD_GETFD, "process_madvise": unix.SYS_PROCESS_MADVISE,
		"kexec_load": unix.SYS_KEXEC_LOAD, "kexec_file_load": unix.SYS_KEXEC_FILE_LOAD, "reboot": unix.SYS_REBOOT,
		"init_module": unix.SYS_INIT_MODULE, "finit_module": unix.SYS_FINIT_MODULE, "delete_module": unix.SYS_DELETE_MODULE,
		"add_key": unix.SYS_ADD_KEY, "request_key": unix.SYS_REQUEST_KEY, "keyctl": unix.SYS_KEYCTL,
		"unshare": unix.SYS_UNSHARE, "open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT, "name_to_handle_at": unix.SYS_NAME_TO_HANDLE_AT,
		"swapon": unix.SYS_SWAPON, "swapoff": unix.SYS_SWAPOFF, "sethostname": unix.SYS_SETHOSTNAME, "setdomainname": unix.SYS_SETDOMAINNAME,
		"settimeofday": unix.SYS_SETTIMEOFDAY, "clock_settime": unix.SYS_CLOCK_SETTIME, "adjtimex": unix.SYS_ADJTIMEX,
		"clock_adjtime": unix.SYS_CLOCK_ADJTIME, "quotactl": unix.SYS_QUOTACTL, "acct": unix.SYS_ACCT, "syslog": unix.SYS_SYSLOG,
		"io_uring_setup": unix.SYS_IO_URING_SETUP, "io_uring_enter": unix.SYS_IO_URING_ENTER, "io_uring_register": unix.SYS_IO_URING_REGISTER,
		"fanotify_init": unix.SYS_FANOTIFY_INIT, "vhangup": unix.SYS_VHANGUP, "lookup_dcookie": unix.SYS_LOOKUP_DCOOKIE,
		"setuid": unix.SYS_SETUID, "setgid": unix.SYS_SETGID, "setgroups": unix.SYS_SETGROUPS, "capset": unix.SYS_CAPSET,
		"setpriority": unix.SYS_SETPRIORITY, "ioprio_set": unix.SYS_IOPRIO_SET, "sched_setscheduler": unix.SYS_SCHED_SETSCHEDULER,
		"mknodat": unix.SYS_MKNODAT, "setxattr": unix.SYS_SETXATTR, "fchownat": unix.SYS_FCHOWNAT, "renameat2": unix.SYS_RENAMEAT2,
		"personality": unix.SYS_PERSONALITY, "seccomp": unix.SYS_SECCOMP, "memfd_create": unix.SYS_MEMFD_CREATE, "execveat": unix.SYS_EXECVEAT,
	}
}

func TestForbiddenCalls(t *testing.T) {
	for name, number := range forbidden() {
		for _, setns := range []bool{false, true} {
			if got := answer(t, setns, auditArch, number); got != denied {
				t.Errorf("%s: %#x, want EPERM", name, got)
			}
		}
	}
}

// threadFlags are those of a thread as glibc and musl make it.
const threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM |
	unix.CLONE_SETTLS | unix.CLONE_PARENT_SETTID | unix.CLONE_CHILD_CLEARTID

func TestArguments(t *testing.T) {
	const stream = unix.SOCK_STREAM | unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	for _, c := range []struct {
		what   string
		want   uint32
		number int
		args   []uint64
	}{
		{"enter a network namespace", allow, unix.SYS_SETNS, []uint64{9, unix.CLONE_NEWNET}},
		{"enter whatever it is", denied, unix.SYS_SETNS, []uint64{9, 0}},
		{"enter a mount namespace", denied, unix.SYS_SETNS, []uint64{9, unix.CLONE_NEWNS}},
		{"enter two at once", denied, unix.SYS_SETNS, []uint64{9, unix.CLONE_NEWNET | unix.CLONE_NEWNS}},
		{"a thread", allow, unix.SYS_CLONE, []uint64{threadFlags}},
		{"a process", denied, unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}},
		{"vfork", denied, unix.SYS_CLONE, []uint64{unix.CLONE_VM | unix.CLONE_VFORK | uint64(unix.SIGCHLD)}},
		{"a user namespace", denied, unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER | uint64(unix.SIGCHLD)}},
		{"a thread in a namespace", denied, unix.SYS_CLONE, []uint64{threadFlags | unix.CLONE_NEWNET}},
		{"clone3", absent, unix.SYS_CLONE3, nil},
		{"TCP", allow, unix.SYS_SOCKET, []uint64{unix.AF_INET, stream, 0}},
		{"TCP over IPv6", allow, unix.SYS_SOCKET, []uint64{unix.AF_INET6, stream, unix.IPPROTO_TCP}},
		{"UDP", allow, unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP}},
		{"unix", allow, unix.SYS_SOCKET, []uint64{unix.AF_UNIX, stream, 0}},
		{"raw", denied, unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW}},
		{"SCTP", denied, unix.SYS_SOCKET, []uint64{unix.AF_INET, stream, unix.IPPROTO_SCTP}},
		{"netlink", denied, unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE}},
		{"packet", denied, unix.SYS_SOCKET, []uint64{unix.AF_PACKET, unix.SOCK_RAW, 0}},
		{"vsock", denied, unix.SYS_SOCKET, []uint64{unix.AF_VSOCK, stream, 0}},
		{"mark", allow, unix.SYS_SETSOCKOPT, []uint64{5, unix.SOL_SOCKET, unix.SO_MARK}},
		{"urgent data in line", allow, unix.SYS_SETSOCKOPT, []uint64{5, unix.SOL_SOCKET, unix.SO_OOBINLINE}},
		{"transparent", allow, unix.SYS_SETSOCKOPT, []uint64{5, unix.SOL_IPV6, unix.IPV6_TRANSPARENT}},
		{"a device", denied, unix.SYS_SETSOCKOPT, []uint64{5, unix.SOL_SOCKET, unix.SO_BINDTODEVICE}},
		{"a filter", denied, unix.SYS_SETSOCKOPT, []uint64{5, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER}},
		{"more memory than is allowed", denied, unix.SYS_SETSOCKOPT, []uint64{5, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE}},
		{"iptables' rules", denied, unix.SYS_SETSOCKOPT, []uint64{5, unix.SOL_IP, 64}},
		{"ipvs", denied, unix.SYS_SETSOCKOPT, []uint64{5, unix.SOL_IP, 1154}},
		{"TCP repair", denied, unix.SYS_SETSOCKOPT, []uint64{5, unix.SOL_TCP, unix.TCP_REPAIR}},
		{"bytes to read", allow, unix.SYS_IOCTL, []uint64{5, fionread}},
		{"an interface's address", denied, unix.SYS_IOCTL, []uint64{5, unix.SIOCSIFADDR}},
		{"terminal input", denied, unix.SYS_IOCTL, []uint64{5, unix.TIOCSTI}},
		{"a thread's name", allow, unix.SYS_PRCTL, []uint64{unix.PR_SET_NAME}},
		{"ambient capabilities", denied, unix.SYS_PRCTL, []uint64{unix.PR_CAP_AMBIENT}},
		{"newer than the list", absent, newestCall + 1, nil},
		{"read", allow, unix.SYS_READ, nil},
	} {
		t.Run(c.what, func(t *testing.T) {
			if got := answer(t, true, auditArch, c.number, c.args...); got != c.want {
				t.Errorf("%#x, want %#x", got, c.want)
			}
		})
	}
}

// The numbers mean other calls there.
func TestOtherArchitectures(t *testing.T) {
	for _, arch := range []uint32{unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_RISCV64} {
		if got := answer(t, true, arch, unix.SYS_READ); got != denied {
			t.Errorf("architecture %#x: %#x, want EPERM", arch, got)
		}
	}
	// x32 has the architecture of amd64, and a bit in the number.
	if got := answer(t, true, auditArch, 1<<30|unix.SYS_READ); got == allow {
		t.Error("x32 is allowed")
	}
}

func TestSetnsNeedsSysAdmin(t *testing.T) {
	if got := answer(t, false, auditArch, unix.SYS_SETNS, 9, unix.CLONE_NEWNET); got != denied {
		t.Errorf("without SYS_ADMIN: %#x, want EPERM", got)
	}
}

// No call is in two lists, of which the first alone counts.
func TestEveryCallOnce(t *testing.T) {
	seen := map[int]bool{}
	for _, r := range ruled(true) {
		seen[r.call] = true
	}
	for _, call := range plain() {
		if seen[call] {
			t.Errorf("call %d is there twice", call)
		}
		seen[call] = true
	}
}

func TestParseCapabilities(t *testing.T) {
	for text, want := range map[string]string{
		"": "0x0 <nil>", "NET_ADMIN,SYS_ADMIN": "0x201000 <nil>", "NET_RAW": "0x2000 <nil>", "SYS_PTRACE": "0x80000 <nil>",
	} {
		got, err := ParseCapabilities(text)
		if said := fmt.Sprintf("%#x %v", uint64(got), err); said != want {
			t.Errorf("%q: %s, want %s", text, said, want)
		}
	}
	for _, text := range []string{"SYS_BOOT", "NET_ADMIN,", "cap_net_admin"} {
		if got, err := ParseCapabilities(text); err == nil {
			t.Errorf("%q: %#x, want an error", text, uint64(got))
		}
	}
}

func TestValidate(t *testing.T) {
	for name, c := range map[string]Config{
		"root": {User: 0, RunDir: "/run"}, "nobody's number": {User: -1, RunDir: "/run"}, "a relative path": {User: 1, RunDir: "run"},
	} {
		if c.Validate() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
