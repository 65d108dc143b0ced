// SPDX-License-Identifier: Apache-2.0
// What a flow says, in words.

// failures are Envoy's flags that stand for a failure, and failedGRPC the statuses of gRPC
// that do: those of the agent's package flow.
export const failures = ['UH', 'UF', 'UO', 'NR', 'URX', 'NC', 'DT', 'UT', 'LR', 'UR', 'UC', 'UPE', 'DPE', 'IH', 'RL', 'RLSE',
  'UAEX', 'OM', 'DF', 'DO', 'NFCF', 'UMSDR', 'SI', 'LH'];
export const failedGRPC = [2, 4, 8, 12, 13, 14, 15];

const grpcNames = ['OK', 'CANCELLED', 'UNKNOWN', 'INVALID_ARGUMENT', 'DEADLINE_EXCEEDED', 'NOT_FOUND', 'ALREADY_EXISTS',
  'PERMISSION_DENIED', 'RESOURCE_EXHAUSTED', 'FAILED_PRECONDITION', 'ABORTED', 'OUT_OF_RANGE', 'UNIMPLEMENTED', 'INTERNAL',
  'UNAVAILABLE', 'DATA_LOSS', 'UNAUTHENTICATED'];

export function failed(flow) {
  return (flow.status ?? 0) >= 500 || failedGRPC.includes(flow.grpcStatus) || (flow.flags ?? []).some((f) => failures.includes(f.flag));
}

// peer is the name of an end of a flow, or else its address.
export function peer(p) {
  if (p.pod) return `${p.namespace}/${p.pod}`;
  return p.address || '–';
}

// service is the Service that was called, or else the address.
export function service(flow) {
  const s = flow.service;
  return s.name ? `${s.namespace}/${s.name}/${s.port}` : flow.frontend || '–';
}

// request is what was asked for.
export function request(flow) {
  const path = (flow.path ?? '') + (flow.query ? '?' + flow.query.replace(/^\?/, '') : '');
  return flow.method ? `${flow.method} ${path}` : flow.protocol;
}

// outcome is how it ended, in short.
export function outcome(flow) {
  const parts = [];
  if (flow.status) parts.push(String(flow.status));
  if (grpc(flow)) parts.push(grpc(flow));
  parts.push(...(flow.flags ?? []).map((f) => f.flag));
  if (parts.length === 0) parts.push(flow.open ? 'open' : 'ended');
  return parts.join(' ');
}

export function grpc(flow) {
  const n = flow.grpcStatus;
  return n >= 0 && flow.protocol === 'gRPC' ? grpcNames[n] ?? `gRPC ${n}` : '';
}

// reasons are its flags in words.
export function reasons(flow) {
  return (flow.flags ?? []).map((f) => f.words || f.flag).join('; ');
}
