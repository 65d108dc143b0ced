// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"path/filepath"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// agentToken belongs to a user of no rights but those the test grants.
const agentToken = "agent"

// writeSigningKey makes the key service account tokens are signed with, which
// the API server insists on having.
func writeSigningKey(t testing.TB, dir string) (path string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("make the signing key: %v", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatalf("encode the signing key: %v", err)
	}
	path = filepath.Join(dir, "signing.key")
	writeFile(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
	return path
}

// Kubeconfig writes a kubeconfig file of the user "agent", who has no rights
// until the test grants them, and returns its path.
func (s *Server) Kubeconfig(t testing.TB) string {
	t.Helper()
	const name = "test"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{
		Server:               s.config.Host,
		CertificateAuthority: s.config.CAFile,
	}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: agentToken}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatalf("write kubeconfig: %v", err)
	}
	return path
}
