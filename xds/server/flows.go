// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"io"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
)

// flowService receives what Envoy logs to the agent.
type flowService struct {
	accesslogv3.UnimplementedAccessLogServiceServer
	server *Server
}

// StreamAccessLogs receives the messages of one worker of Envoy. Nothing is ever
// answered before the end, and Envoy waits for nothing.
func (f *flowService) StreamAccessLogs(stream accesslogv3.AccessLogService_StreamAccessLogsServer) error {
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&accesslogv3.StreamAccessLogsResponse{})
		}
		if err != nil {
			return err
		}
		f.server.onFlows(f.server.decoder.Decode(msg))
	}
}
