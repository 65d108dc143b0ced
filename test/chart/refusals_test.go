// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"strings"
	"testing"
)

// What is refused, and a part of what helm says about it: the value's path and
// what is wrong with it.
func TestRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		set  string // helm's --set-json
		want []string
	}{
		"an unknown key":             {`redirct={}`, []string{"additional properties 'redirct' not allowed"}},
		"an unknown key, deeper":     {`envoy.concurency=1`, []string{"/envoy", "'concurency' not allowed"}},
		"a mode that is none":        {`redirect.mode="foo"`, []string{"/redirect/mode", "one of 'auto', 'pod', 'host'"}},
		"a directory not absolute":   {`redirect.netnsDirs=["run/netns"]`, []string{`redirect.netnsDirs: "run/netns" is not the absolute path of a directory of network namespaces`}},
		"a directory too wide":       {`redirect.netnsDirs=["/run"]`, []string{`redirect.netnsDirs: "/run" is not the absolute path of a directory of network namespaces`}},
		"a directory by a detour":    {`redirect.netnsDirs=["/run/x/../netns"]`, []string{`redirect.netnsDirs: "/run/x/../netns" is not the absolute path of a directory`}},
		"a directory of our own":     {`redirect.netnsDirs=["/run/nodevoy/netns"]`, []string{"redirect.netnsDirs: /run/nodevoy/netns has another purpose"}},
		"a directory twice":          {`redirect.netnsDirs=["/run/netns","/run/netns"]`, []string{"/redirect/netnsDirs", "equal"}},
		"a directory as text":        {`redirect.netnsDirs="/run/netns"`, []string{"/redirect/netnsDirs", "got string, want array"}},
		"no directory and no proc":   {`redirect={"mode":"pod","netnsDirs":[]}`, []string{"redirect.netnsDirs is empty and redirect.hostProc is false", "mode pod can't find"}},
		"a path for hostProc":        {`redirect.hostProc="/proc"`, []string{"/redirect/hostProc", "got string, want boolean"}},
		"fewer than no connections":  {`envoy.maxConnectionsPerPod=-1`, []string{"/envoy/maxConnectionsPerPod", "got -1, want 0"}},
		"fewer than no requests":     {`envoy.maxRequestRatePerPod=-1`, []string{"/envoy/maxRequestRatePerPod", "got -1, want 0"}},
		"too many new connections":   {`envoy.maxConnectionRatePerPod=100001`, []string{"/envoy/maxConnectionRatePerPod", "got 100,001, want 100,000"}},
		"connections as a size":      {`envoy.maxConnectionsPerPod="1k"`, []string{"/envoy/maxConnectionsPerPod", "'1k' does not match"}},
		"clusters past the heap":     {`envoy.clusterMemory="820Mi"`, []string{"envoy.clusterMemory: 820Mi is not below the bound of Envoy's heap, 858993459 bytes"}},
		"hardly room for clusters":   {`envoy.clusterMemory="7Mi"`, []string{"envoy.clusterMemory: 7Mi is too small: set 8Mi or more"}},
		"clusters by no size":        {`envoy.clusterMemory="1GB"`, []string{"/envoy/clusterMemory", "'1GB' does not match"}},
		"too many connections":       {`envoy.maxConnectionsPerPod=1000001`, []string{"/envoy/maxConnectionsPerPod", "want 1×10⁰⁶"}},
		"a heap that is no size":     {`envoy.maxHeap="1GB"`, []string{"/envoy/maxHeap", "'1GB' does not match"}},
		"a heap past the limit":      {`envoy.maxHeap="1Gi"`, []string{"envoy.maxHeap: 1Gi is not below the container's limit, envoy.resources.limits.memory: 1Gi"}},
		"a heap for nothing":         {`envoy.maxHeap=67108863`, []string{"/envoy/maxHeap", "got 6.7108863×10⁰⁷, want 6.7108864×10⁰⁷"}},
		"a heap for nothing, in Mi":  {`envoy.maxHeap="63Mi"`, []string{"envoy.maxHeap: 63Mi is too small for Envoy", "64Mi or more"}},
		"a heap for nothing, in M":   {`envoy.maxHeap="67M"`, []string{"envoy.maxHeap: 67M is too small for Envoy"}},
		"a heap below nothing":       {`envoy.maxHeap=-1`, []string{"/envoy/maxHeap", "got -1, want 0"}},
		"a limit for nothing":        {`envoy.resources={"limits":{"memory":"127Mi"}}`, []string{"envoy.resources.limits.memory: half of 127Mi is too small for Envoy", "128Mi or more"}},
		"a mechanism that is none":   {`redirect.mechanism="redirect"`, []string{"/redirect/mechanism", "'dnat', 'tproxy'"}},
		"an iptables that is none":   {`redirect.iptables="ipvs"`, []string{"/redirect/iptables", "'nft', 'legacy'"}},
		"a port out of range":        {`redirect.listener.ports.tcp=70000`, []string{"/redirect/listener/ports/tcp", "got 70,000, want 65,535"}},
		"port 0":                     {`redirect.listener.ports.http=0`, []string{"/redirect/listener/ports/http", "got 0, want 1"}},
		"a port as text":             {`redirect.listener.ports.http="80"`, []string{"/redirect/listener/ports/http", "got string, want integer"}},
		"a port twice":               {`redirect.listener.ports.tcp=23722`, []string{"redirect.listener.ports: tcp 23722, http 23722", "have to differ"}},
		"an opaque port of range":    {`redirect.opaquePorts=[65536]`, []string{"/redirect/opaquePorts/0"}},
		"an unknown detection":       {`redirect.undeclared="http"`, []string{"/redirect/undeclared"}},
		"an opaque port twice":       {`redirect.opaquePorts=[25,25]`, []string{"/redirect/opaquePorts", "equal"}},
		"debug port out of range":    {`debug.port=0`, []string{"/debug/port"}},
		"metrics port out of range":  {`monitoring.port=100000`, []string{"/monitoring/port"}},
		"an address of the wrong":    {`redirect.listener.address4="10.0.0.1"`, []string{`redirect.listener.address4: "10.0.0.1" is not in 169.254.0.0/16`}},
		"an IPv6 address":            {`redirect.listener.address6="2001:db8::1"`, []string{`redirect.listener.address6: "2001:db8::1" is not in fc00::/7`}},
		"a time without a unit":      {`redirect.timeout="30"`, []string{`redirect.timeout: "30" is not whole seconds`}},
		"a number for a time":        {`redirect.timeout=30`, []string{"/redirect/timeout", "got number, want string"}},
		"a time that is none":        {`envoy.detectTimeout="soon"`, []string{`envoy.detectTimeout: "soon" is not a time such as 500ms`}},
		"a scrape interval":          {`monitoring.podMonitor.interval="often"`, []string{`monitoring.podMonitor.interval: "often"`}},
		"a mark of no bits":          {`redirect.mark="0x0"`, []string{`redirect.mark: "0x0" is not a hexadecimal number`}},
		"a mark as a number":         {`redirect.mark=16`, []string{"/redirect/mark", "got number, want string"}},
		"a route table of main":      {`redirect.routeTable=254`, []string{"redirect.routeTable: 254 is reserved by the kernel"}},
		"a route table out of range": {`redirect.routeTable=32766`, []string{"/redirect/routeTable", "32,765"}},
		"a namespace's name":         {`redirect.excludedNamespaces=["Kube_System"]`, []string{"/redirect/excludedNamespaces/0", "'Kube_System' does not match"}},
		"no workers":                 {`envoy.concurrency=0`, []string{"/envoy/concurrency", "got 0, want 1"}},
		"workers by another word":    {`envoy.concurrency="all"`, []string{"/envoy/concurrency", "'auto'"}},
		"an access log that is none": {`envoy.accessLog="csv"`, []string{"/envoy/accessLog", "'text', 'json', 'off'"}},
		"off without quotes":         {`envoy.accessLog=false`, []string{"/envoy/accessLog", "'off'"}},
		"a log's relative path":      {`envoy.accessLogFile="access.log"`, []string{"/envoy/accessLogFile", "does not match"}},
		"a log among the node's own": {`envoy.accessLogFile="/var/log/access.log"`, []string{"/envoy/accessLogFile", "does not match"}},
		"a collector without a port": {`telemetry.otlpEndpoint="otel"`, []string{"/telemetry/otlpEndpoint", "does not match"}},
		"a share that is a number":   {`telemetry.tracing=5`, []string{"/telemetry/tracing", "want string"}},
		"a log level":                {`logLevel="verbose"`, []string{"/logLevel", "'debug', 'info', 'warn', 'error'"}},
		"a log format":               {`logFormat="xml"`, []string{"/logFormat", "'json', 'console'"}},
		"no drain":                   {`drainSeconds=0`, []string{"/drainSeconds", "got 0, want 1"}},
		"a pull policy":              {`image.pullPolicy="always"`, []string{"/image/pullPolicy", "'Always'"}},
		"a digest":                   {`image.digest="1234"`, []string{"/image/digest", "sha256:"}},
		"a repository with a tag@":   {`envoy.image.repository="envoy@sha256:1"`, []string{"/envoy/image/repository"}},
		"pull secrets as names":      {`imagePullSecrets=["registry"]`, []string{"/imagePullSecrets/0", "want object"}},
		"a quantity":                 {`resources={"limits":{"memory":"1 GB"}}`, []string{"/resources/limits/memory", "1 GB"}},
		"resources misspelled":       {`resources={"limit":{}}`, []string{"/resources", "'limit' not allowed"}},
		"arguments as text":          {`extraArgs="--debug"`, []string{"/extraArgs", "got string, want array"}},
		"an environment as a map":    {`extraEnv={"A":"b"}`, []string{"/extraEnv", "want array"}},
		"a label that is a number":   {`podLabels={"a":1}`, []string{"/podLabels/a", "want string"}},
		"both surge and unavailable": {`updateStrategy.rollingUpdate.maxUnavailable=1`, []string{"exactly one of maxSurge and maxUnavailable has to be 0"}},
		"neither":                    {`updateStrategy.rollingUpdate.maxSurge=0`, []string{"exactly one of maxSurge and maxUnavailable has to be 0"}},
		"a strategy that is none":    {`updateStrategy.type="Recreate"`, []string{"/updateStrategy/type", "'OnDelete'"}},
		"a tolerations' effect":      {`tolerations=[{"effect":"Never"}]`, []string{"/tolerations/0/effect"}},
		"an affinity of no kind":     {`affinity={"nodes":{}}`, []string{"/affinity", "'nodes' not allowed"}},
		"a namespace that opts in":   {`redirect.podOptInNamespaces=["shop*"]`, []string{"/redirect/podOptInNamespaces/0"}},
		"a network's name":           {`redirect.excludedEndpoints=["10.0.0.0"]`, []string{"/redirect/excludedEndpoints/0", "does not match"}},
		"a selector as text":         {`namespaceSelector="a=b"`, []string{"/namespaceSelector", "want object"}},
		"a selector's operator":      {`namespaceSelector={"matchExpressions":[{"key":"a","operator":"="}]}`, []string{"/namespaceSelector/matchExpressions/0/operator"}},
		"a selector without values":  {`namespaceSelector={"matchExpressions":[{"key":"a","operator":"In"}]}`, []string{"namespaceSelector: a In needs values"}},
		"a selector with values":     {`namespaceSelector={"matchExpressions":[{"key":"a","operator":"Exists","values":["b"]}]}`, []string{"namespaceSelector: a Exists takes no values"}},
		"no account and no name":     {`serviceAccount.create=false`, []string{"serviceAccount.name is required"}},
		"a test where nothing is":    {`test.namespace="kube-system"`, []string{"test.namespace: kube-system is one of redirect.excludedNamespaces"}},
	} {
		t.Run(name, func(t *testing.T) {
			out, failure := helm(t, []string{"template", "nodevoy"}, "--set-json", tc.set)
			if failure == "" {
				t.Fatalf("accepted: %.300s", out)
			}
			for _, want := range tc.want {
				if !strings.Contains(failure, want) {
					t.Errorf("want %q in: %s", want, failure)
				}
			}
		})
	}
}

func TestKubernetesTooOld(t *testing.T) {
	_, failure := helm(t, []string{"template", "nodevoy"}, "--kube-version", "1.28.0")
	if !strings.Contains(failure, "requires kubeVersion: >=1.29.0-0") {
		t.Errorf("got %q", failure)
	}
}

// Helm gives a chart that another one depends on the key `global`.
func TestAsDependency(t *testing.T) {
	if _, failure := helm(t, []string{"template", "nodevoy"}, "--set-json", `global={"region":"x"}`); failure != "" {
		t.Error(failure)
	}
}
