// SPDX-License-Identifier: Apache-2.0

package programs

import "strings"

// lingering is what becomes of clients that wait until the server ends the connection.
const lingering = "Envoy ends a client's connection a second after the server has, once its protocol was changed"

// sent is a client that sends a line of its own and ends, and then sees whether the
// server has it.
func sent(client string) string {
	return `line=m.$$.$PORT; echo "$line 1" ` + client + `
		for i in $(seq 100); do grep -q "^$line" $DIR/received && echo received && exit; sleep 0.01; done`
}

// detectLoss is what becomes of what is sent and closed at once, at a port whose protocol
// is detected.
const detectLoss = "Envoy gives up connections that end while it detects their protocol"

// nodeAddress is what becomes of FTP in host mode.
const nodeAddress = "the server refuses a data connection from the pod, as the control connection came from the node"

func otherServers() []program {
	ssh := `ssh -F none -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR -o IdentitiesOnly=yes -i $DIR/key -p $PORT root@$HOST `
	ftp := `curl -sS --disable-epsv --no-ftp-skip-pasv-ip `
	return []program{
		{
			name: "smtp", listen: 25, start: `exec /usr/bin/python3 -m aiosmtpd -n -l 0.0.0.0:25 -c aiosmtpd.handlers.Sink`,
			ports: []port{{name: "smtp", number: 25}, {number: 587}, {name: "mail", number: 1025}},
			calls: []call{{run: `printf 'Subject: x\r\n\r\nbody\r\n' | curl -sS -v smtp://$HOST:$PORT --mail-from a@x --mail-rcpt b@y -T - 2>&1 | grep -o '^< [0-9].*'`, want: "250 OK"}},
		},
		{
			name: "vsftpd", listen: 21,
			start: `mkdir -p /run/vsftpd/empty pub && chmod 755 . pub && seq 1 1000 >pub/file &&
				printf '%s\n' listen=YES anonymous_enable=YES no_anon_password=YES anon_root=$DIR/pub secure_chroot_dir=/run/vsftpd/empty \
					listen_ipv6=NO background=NO seccomp_sandbox=NO xferlog_enable=NO >conf && exec vsftpd $DIR/conf`,
			ports: []port{{name: "ftp", number: 21}, {number: 21}, {name: "files", number: 2121}},
			calls: []call{
				{run: `printf 'QUIT\r\n' | nc.openbsd $HOST $PORT`, want: "221"},
				// The passive connection goes to the pod's own address.
				{run: ftp + `ftp://$HOST:$PORT/file | md5sum`, want: "-", unlike: nodeAddress},
				{run: ftp + `ftp://$HOST:$PORT/ | grep -o file`, want: "file", unlike: nodeAddress},
			},
		},
		{
			name: "sshd", listen: 22,
			start: `mkdir -p /run/sshd && ssh-keygen -q -t ed25519 -N '' -f host && ssh-keygen -q -t ed25519 -N '' -f key && exec /usr/sbin/sshd -D -e -f /dev/null \
				-h $DIR/host -o UsePAM=no -o StrictModes=no -o PermitRootLogin=yes -o AuthorizedKeysFile=$DIR/key.pub -o PidFile=none`,
			ports: []port{{name: "ssh", number: 22}, {number: 22}, {name: "git", number: 2222}},
			calls: []call{
				{run: `nc.openbsd -N $HOST $PORT </dev/null | cut -c 1-8`, want: "SSH-2.0-"},
				{run: `echo hello | ` + ssh + `cat`, want: "hello", untimed: true},
				{run: ssh + `head -c 300000 /dev/zero | wc -c; ` + ssh + `exit 7 || echo $?`, want: "7", untimed: true, only: []int32{22}},
			},
		},
		{
			name: "carbon", listen: 2003, start: `touch received; exec nc.openbsd -l -k 2003 >>received`,
			ports: []port{{name: "carbon", number: 2003}, {number: 2003}, {name: "tcp-metrics", number: 12004}, {name: "metrics", number: 9109}},
			calls: []call{
				{run: sent(`| nc.openbsd -N $HOST $PORT`), want: "received", untimed: true, unlike: detectLoss},
				{run: sent(`| nc.traditional -q 0 $HOST $PORT`), want: "received", untimed: true, unlike: detectLoss},
				{run: `bash -c '` + sent(`>/dev/tcp/$HOST/$PORT`) + `'`, want: "received", untimed: true, unlike: detectLoss},
			},
		},
		{
			name: "websocket", listen: 8765, start: `exec /usr/bin/python3 $TESTDATA/websocket.py serve 8765`,
			ports: []port{{name: "ws", number: 80}, {name: "http", number: 8080}, {number: 8765}, {name: "web", number: 80}},
			calls: []call{{run: `/usr/bin/python3 $TESTDATA/websocket.py call ws://$HOST:$PORT/path`, want: "closed 1000", later: lingering}},
		},
		{
			name: "kubeexec", listen: 10250, start: `exec kubeexec serve :10250`,
			ports: []port{{name: "http", number: 80}, {number: 8080}, {name: "x", number: 7777}},
			calls: []call{
				{run: `echo hello | kubeexec spdy $HOST:$PORT cat`, want: "hello"},
				{run: `kubeexec spdy $HOST:$PORT head -c 1000000 /dev/zero </dev/null | wc -c`, want: "1000000"},
				{run: `kubeexec websocket $HOST:$PORT sh -c 'echo out; echo err >&2' 2>&1 | sort`, want: "err\nout"},
			},
		},
		{
			name: "grpc", listen: 50051, start: `exec interop-server --port 50051`,
			ports: []port{{name: "grpc", number: 50051}, {number: 50051}, {name: "api", number: 8080}, {name: "x", number: 9000, app: "kubernetes.io/h2c"}},
			calls: interopCalls(),
		},
	}
}

// interopCalls are the cases of grpc-go's interop client that need no special server.
func interopCalls() []call {
	const balanced = ` --service_config_json='{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}'`
	var calls []call
	for _, name := range []string{
		"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream", "timeout_on_sleeping_server",
		"cancel_after_begin", "cancel_after_first_response", "status_code_and_message", "special_status_message", "custom_metadata",
		"unimplemented_method", "unimplemented_service", "rpc_soak", "channel_soak", "orca_per_rpc", "orca_oob",
	} {
		c := call{run: `interop-client --server_host=$HOST --server_port=$PORT --test_case=` + name + balanced, untimed: name != "empty_unary"}
		if strings.HasSuffix(name, "_soak") || name == "orca_oob" { // These take longer.
			c.only = []int32{50051}
		}
		calls = append(calls, c)
	}
	return calls
}

// absoluteForm is what becomes of requests to forward proxies.
const absoluteForm = "Envoy drops user info, takes the URL's host for the Host, and refuses other schemes than http and https"

func proxies() []program {
	x := `curl -sS -x http://$HOST:$PORT `
	return []program{{
		name: "squid", listen: 3128,
		start: `printf '%s\n' 'http_port 3128' 'acl safe method CONNECT' 'http_access allow all' 'cache deny all' 'access_log none' 'cache_log /dev/null' \
			'pid_filename none' 'shutdown_lifetime 0' "coredump_dir $DIR" 'via off' 'forwarded_for delete' >conf && exec squid -N -f conf`,
		ports: []port{{name: "squid", number: 3128}, {name: "http-proxy", number: 3128}, {name: "proxy", number: 8080}},
		calls: []call{
			{run: x + `http://$nginx/file`, want: "100"},
			{run: x + `-i "http://$nginx/args?a=1"`, want: "GET /args?a=1 ", head: true},
			{run: x + `--http1.0 "http://$nginx/args?b=2"`, want: "GET /args?b=2"},
			{run: x + `-p http://$nginx/file`, want: "100"},
			{run: x + `-k https://$nginx/file`, want: "100"},
			{run: x + `-d body http://$golang:8080/echo`, want: "body"},
			{run: x + `-U user:password http://$nginx/file`, want: "100"},
			{run: x + `ftp://$vsftpd/file`, want: "1000", unlike: absoluteForm},
		},
	}}
}
