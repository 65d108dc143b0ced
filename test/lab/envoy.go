// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The environment that says where the binaries of Envoy and of nodevoy are; the
// Makefile sets it.
const (
	EnvoyEnv = "NODEVOY_ENVOY"
	agentEnv = "NODEVOY_BIN"
)

// EnvoyUser is the user, and the group, that a node's Envoy runs as.
const EnvoyUser = "65532"

// drainSeconds is how long Envoy lets the connections of a listener that it lost
// go on. Those of a pod that is gone may have nobody else to end them.
const drainSeconds = "20"

// Envoy is a real Envoy, on a node or in a pod.
type Envoy struct {
	*Process
	admin *http.Client
	log   string
}

// EnvoyOptions are what a node's Envoy may be started with. The zero value is one
// worker and what most tests need.
type EnvoyOptions struct {
	// By is a program that is given Envoy's command line, to limit Envoy; it is to
	// become Envoy.
	By []string
	// Flags replace those for the number of workers and the drain time.
	Flags []string
	// Bootstrap are more flags of `nodevoy bootstrap`.
	Bootstrap []string
	// Piped drops the access log, read from a pipe as a container runtime does.
	// Its file is in memory, which would be accounted to Envoy.
	Piped bool
}

// StartEnvoy starts Envoy with what `nodevoy bootstrap` prints, and returns
// when its admin socket answers: listeners come once an agent serves them. It is
// started by the launcher, with the rights that the chart gives it.
func (n *Node) StartEnvoy(ctx context.Context) (*Envoy, error) {
	return n.StartEnvoyWith(ctx, EnvoyOptions{})
}

// StartEnvoyWith is StartEnvoy with options.
func (n *Node) StartEnvoyWith(ctx context.Context, options EnvoyOptions) (*Envoy, error) {
	argv, err := nodevoy("bootstrap", append([]string{"--run-dir", n.RunDir(), "--node-name", n.Name, "--envoy-group", EnvoyUser, "--programs-output", n.RunDir()}, options.Bootstrap...)...)
	if err != nil {
		return nil, err
	}
	bootstrap, err := n.Run(ctx, argv...)
	if err != nil {
		return nil, err
	}
	options.By = append(slices.Clone(options.By), n.launcher()...)
	files := envoyFiles{
		config: filepath.Join(n.RunDir(), "envoy.yaml"),
		// Standard output has the access log only; Envoy's own log goes to a file.
		access: filepath.Join(n.dir, "access"+n.generation+".log"),
		log:    filepath.Join(n.dir, "envoy"+n.generation+".log"),
		admin:  filepath.Join(n.RunDir(), "envoy-admin.sock"),
	}
	if options.Piped {
		files.access = ""
	}
	return n.startEnvoy(ctx, n.ns, files, bootstrap, options)
}

// launcher is the command that starts a node's Envoy. setpriv gives it no more than
// the chart's container has.
func (n *Node) launcher() []string {
	capabilities := []string{"NET_ADMIN", "SYS_ADMIN"}
	if n.lab.options.Mode == Host {
		capabilities = []string{"NET_RAW"}
	}
	bounds := "-all,+setuid,+setgid"
	for _, c := range capabilities {
		bounds += ",+" + strings.ToLower(c)
	}
	return []string{
		"setpriv", "--inh-caps=-all", "--bounding-set=" + bounds, "--",
		filepath.Join(n.RunDir(), "nodevoy-launch"), "--user", EnvoyUser, "--run-dir", n.RunDir(),
		"--netns-dir", n.NetnsDir(), "--capabilities", strings.Join(capabilities, ","), "--",
	}
}

// StartSidecar starts Envoy in the pod's network namespace, with the flags of a
// node's Envoy and this configuration. The admin socket in it is SidecarAdmin.
func (p *Pod) StartSidecar(ctx context.Context, config string) (*Envoy, error) {
	file := func(suffix string) string { return filepath.Join(p.Node.dir, p.Name+"-sidecar"+suffix) }
	return p.Node.startEnvoy(ctx, p.ns, envoyFiles{
		config: file(".yaml"), access: file("-access.log"), log: file(".log"), admin: p.SidecarAdmin(),
	}, config, EnvoyOptions{})
}

// SidecarAdmin is the path of the admin socket of the pod's sidecar.
func (p *Pod) SidecarAdmin() string {
	return filepath.Join(p.Node.dir, p.Name+"-sidecar.sock")
}

// envoyFiles are the paths of an Envoy's configuration, its access log, its own
// log and its admin socket.
type envoyFiles struct{ config, access, log, admin string }

// startEnvoy starts Envoy in a network namespace and returns when its admin socket
// answers. The node ends it.
func (n *Node) startEnvoy(ctx context.Context, in *namespace, files envoyFiles, config string, options EnvoyOptions) (*Envoy, error) {
	binary, err := binary(EnvoyEnv, "make envoy")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(files.config, []byte(config), 0o644); err != nil {
		return nil, fmt.Errorf("write Envoy's configuration: %w", err)
	}
	flags := options.Flags
	if flags == nil {
		flags = []string{"--concurrency", "1", "--drain-time-s", drainSeconds}
	}
	log, err := os.OpenFile(files.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open Envoy's log: %w", err)
	}
	defer log.Close()
	argv := append(slices.Clone(options.By), binary, "--config-path", files.config, "--disable-hot-restart",
		"--log-level", "warning", "--file-flush-interval-msec", "100")
	argv = append(argv, flags...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = log
	e := &Envoy{admin: unixClient(files.admin), log: files.log}
	if e.Process, err = in.startWith(cmd, files.access); err != nil {
		return nil, err
	}
	*n.procs = append(*n.procs, e.Process)
	err = e.until(ctx, "Envoy in "+in.name, func() error {
		_, err := e.Admin(ctx, "/server_info")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, e.LogEnd(10))
	}
	return e, nil
}

// Log is Envoy's own log.
func (e *Envoy) Log() string {
	text, err := os.ReadFile(e.log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// LogEnd are the last lines of Envoy's own log, as far as they tell anything.
func (e *Envoy) LogEnd(lines int) string {
	told := slices.DeleteFunc(strings.Split(e.Log(), "\n"), func(line string) bool {
		return strings.Contains(line, "is marked as work-in-progress")
	})
	return tail(strings.Join(told, "\n"), lines)
}

// AccessLog are the lines of the access log so far, those of earlier Envoys of
// the node included. Envoy writes them with a delay of a tenth of a second.
func (e *Envoy) AccessLog() []string {
	return strings.FieldsFunc(e.Output(), func(r rune) bool { return r == '\n' })
}

// Admin asks Envoy's admin interface for a path.
func (e *Envoy) Admin(ctx context.Context, path string) (string, error) {
	return get(ctx, e.admin, "http://unix"+path)
}

// Stat is the value of one counter or gauge; 0 when Envoy has none of this name.
func (e *Envoy) Stat(ctx context.Context, name string) (int64, error) {
	stats, err := e.Stats(ctx, "^"+name+"$")
	return stats[name], err
}

// Stats are the counters and gauges whose names match a regular expression.
func (e *Envoy) Stats(ctx context.Context, filter string) (map[string]int64, error) {
	text, err := e.Admin(ctx, "/stats?format=json&filter="+url.QueryEscape(filter))
	if err != nil {
		return nil, err
	}
	var got struct {
		Stats []struct {
			Name  string
			Value int64
		}
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		return nil, fmt.Errorf("parse stats of Envoy: %w", err)
	}
	stats := map[string]int64{}
	for _, s := range got.Stats {
		if s.Name != "" {
			stats[s.Name] = s.Value
		}
	}
	return stats, nil
}

// unixClient is an HTTP client that talks to one unix socket.
func unixClient(path string) *http.Client {
	return &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", path)
			},
		},
	}
}

func get(ctx context.Context, client *http.Client, address string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return string(body), fmt.Errorf("get %s: status %s", address, response.Status)
	}
	return string(body), nil
}

// binary is the path that an environment variable has.
func binary(env, target string) (string, error) {
	path := os.Getenv(env)
	if path == "" {
		return "", fmt.Errorf("%s is not set: run this by make, or %q first", env, target)
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s: %w: run %q first", env, err, target)
	}
	return path, nil
}

// Installed returns an error that says what is missing for agents and Envoys.
func Installed() error {
	_, agentErr := binary(agentEnv, "make build")
	_, envoyErr := binary(EnvoyEnv, "make envoy")
	return errors.Join(agentErr, envoyErr)
}

// tail are the last lines of a text.
func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
