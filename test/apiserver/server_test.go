// SPDX-License-Identifier: Apache-2.0

package apiserver

import "testing"

func TestStart(t *testing.T) {
	version, err := Start(t).Client(t).ServerVersion()
	if err != nil {
		t.Fatalf("ask for the version: %v", err)
	}
	t.Logf("%s", version.GitVersion)
}
