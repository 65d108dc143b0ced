// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodevoy/nodevoy/test/lab"
)

// bulkCommand is the first argument that makes this program a server or a client
// of bulk transfers.
const bulkCommand = "bulk"

// bulkPort and delayedPort are those of a server of bulk transfers: at once, and with a
// delay.
const bulkPort, delayedPort = 8081, 8082

// bulkServicePorts are the Service's ports that lead there.
func bulkServicePorts() []corev1.ServicePort {
	port := func(name string, number int32, target int) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Port: number, TargetPort: intstr.FromInt(target), Protocol: corev1.ProtocolTCP}
	}
	return []corev1.ServicePort{port("http-bulk", 81, bulkPort), port("tcp-bulk", 82, bulkPort), port("http-delayed", 83, delayedPort)}
}

// wireDelay is that of a delayed port, each way. Not every kernel can delay packets, so
// the server delays bytes: HTTP/2's windows meet a round trip of twice as long, TCP's
// don't.
const wireDelay = 10 * time.Millisecond

// bulkMain runs `serve`, or `call URL VERSION DIRECTION BYTES`, which prints the
// transfer's seconds, and returns the exit code.
func bulkMain(args []string) int {
	var err error
	switch {
	case len(args) == 1 && args[0] == "serve":
		err = bulkServe()
	case len(args) == 5 && args[0] == "call":
		err = bulkCall(args[1], args[2], args[3], args[4])
	default:
		err = fmt.Errorf("want serve or call URL VERSION DIRECTION BYTES, not %q", args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bulk:", err)
		return 1
	}
	return 0
}

// zeros is endless content.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// bulkServe takes what is posted, and sends as many bytes as the path says.
func bulkServe() error {
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", bulkPort))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := relayDelayed(); err != nil {
		return err
	}
	fmt.Println("listening")
	server := &http.Server{
		Protocols: versions(true, true), ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				// The client sees that its request failed.
				_, _ = io.Copy(io.Discard, r.Body)
				return
			}
			size, err := strconv.ParseInt(r.URL.Path[1:], 10, 64)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			_, _ = io.CopyN(w, zeros{}, size)
		}),
	}
	return server.Serve(listener)
}

// relayDelayed serves the delayed port in the background.
func relayDelayed() error {
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", delayedPort))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", bulkPort))
			if err != nil {
				_ = client.Close()
				continue
			}
			go relay(server.(*net.TCPConn), client.(*net.TCPConn))
			go relay(client.(*net.TCPConn), server.(*net.TCPConn))
		}
	}()
	return nil
}

// relay copies from one connection to another, with the delay.
func relay(to, from *net.TCPConn) {
	type piece struct {
		due   time.Time
		bytes []byte
	}
	pieces := make(chan piece, 4096)
	go func() {
		// The other end sees what is missing.
		defer func() { _ = to.CloseWrite() }()
		for p := range pieces {
			<-time.After(time.Until(p.due))
			if _, err := to.Write(p.bytes); err != nil {
				_ = from.Close()
			}
		}
	}()
	for {
		buffer := make([]byte, 64<<10)
		n, err := from.Read(buffer)
		if n > 0 {
			pieces <- piece{time.Now().Add(wireDelay), buffer[:n]}
		}
		if err != nil {
			close(pieces)
			return
		}
	}
}

func versions(http1, http2 bool) *http.Protocols {
	var p http.Protocols
	p.SetHTTP1(http1)
	p.SetUnencryptedHTTP2(http2)
	return &p
}

// bulkCall transfers once and prints how many seconds it took.
func bulkCall(url, version, direction, bytes string) error {
	size, err := strconv.ParseInt(bytes, 10, 64)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{Protocols: versions(version == "1", version == "2")}}
	defer client.CloseIdleConnections()
	start := time.Now()
	want := size
	var response *http.Response
	if direction == "up" {
		want = 0
		response, err = client.Post(url, "application/octet-stream", io.LimitReader(zeros{}, size))
	} else {
		response, err = client.Get(url + "/" + bytes)
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	got, err := io.Copy(io.Discard, response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || got != want {
		return fmt.Errorf("status %d and %d bytes, want %d", response.StatusCode, got, want)
	}
	fmt.Println(time.Since(start).Seconds())
	return nil
}

// startBulk starts a server of bulk transfers in each backend.
func (b *fixture) startBulk(ctx context.Context) error {
	for _, pod := range b.web {
		server, err := pod.Start(pod.Name+"-bulk.log", "/proc/self/exe", bulkCommand, "serve")
		if err != nil {
			return err
		}
		if err := lab.Until(ctx, "the server of bulk transfers in "+pod.Name, func() error {
			if server.Output() == "" {
				return errors.New("not listening")
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// measureBulk prints the speed of one transfer in each direction by each path, at
// once and with a delay to the backends, as medians of the rounds.
func (b *fixture) measureBulk(ctx context.Context, cfg config) error {
	if err := b.startBulk(ctx); err != nil {
		return err
	}
	const line = "%-24s %9v %9v %9v %9v  %11s\n"
	fmt.Printf("\n%d MiB at once, MB/s, medians of %d rounds; \"far\" is with a round trip of %s\n\n"+line,
		cfg.bulk, cfg.rounds, 2*wireDelay, "", "direct", "host", "pod", "sidecar", "pod/sidecar")
	for _, t := range []struct {
		name, version string
		port          int
	}{{"HTTP/1.1", "1", 81}, {"HTTP/2", "2", 81}, {"TCP", "1", 82}, {"HTTP/1.1 far", "1", 83}, {"HTTP/2 far", "2", 83}} {
		for _, direction := range []string{"up", "down"} {
			var speeds [sides][]float64
			var ratios []float64
			for round := range cfg.rounds {
				for i := range sides {
					side := (i + round) % sides
					speed, err := b.paths()[side].bulk(ctx, t.version, direction, t.port, cfg.bulk)
					if err != nil {
						return fmt.Errorf("%s %s, %s: %w", t.name, direction, b.paths()[side].name, err)
					}
					speeds[side] = append(speeds[side], speed)
				}
				ratios = append(ratios, speeds[2][round]/speeds[3][round])
			}
			cells := []any{t.name + " " + direction}
			same := func(v float64) float64 { return v }
			for _, s := range speeds {
				cells = append(cells, fmt.Sprintf("%.0f", median(s, same)))
			}
			fmt.Printf(line, append(cells, fmt.Sprintf("%.2f x", median(ratios, same)))...)
		}
	}
	return nil
}

// bulk is the speed of one transfer, in MB/s.
func (p *path) bulk(ctx context.Context, version, direction string, port, mebibytes int) (float64, error) {
	size := mebibytes << 20
	out, err := p.from.Run(ctx, "/proc/self/exe", bulkCommand, "call",
		fmt.Sprintf("http://%s:%d", serviceIP, port), version, direction, strconv.Itoa(size))
	if err != nil {
		return 0, err
	}
	var seconds float64
	if _, err := fmt.Sscan(out, &seconds); err != nil {
		return 0, fmt.Errorf("parse %q: %w", out, err)
	}
	return float64(size) / 1e6 / seconds, nil
}
