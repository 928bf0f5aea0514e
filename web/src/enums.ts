/** Names of the numbers the server may send (schema/enums.yaml); a name passes through unchanged. */

const STATUS: Record<string, string> = {
  0: 'Success',
  2: 'Timeout',
  3: 'Server Error',
  4: 'Client Error',
  5: 'Unknown',
  6: 'Parse Failed',
};

const PROTOCOL: Record<string, string> = { 0: 'N/A', 20: 'HTTP', 60: 'MySQL', 80: 'Redis', 120: 'DNS' };

const OBSERVATION_POINT: Record<string, string> = {
  c: 'Client NIC',
  'c-nd': 'Client K8s Node',
  'c-hv': 'Client VM Hypervisor',
  'c-gw-hv': 'Client-side Gateway Hypervisor',
  'c-gw': 'Client-side Gateway',
  local: 'Local NIC',
  rest: 'Other NIC',
  's-gw': 'Server-side Gateway',
  's-gw-hv': 'Server-side Gateway Hypervisor',
  's-hv': 'Server VM Hypervisor',
  's-nd': 'Server K8s Node',
  s: 'Server NIC',
  'c-p': 'Client Process',
  's-p': 'Server Process',
  'c-app': 'Client Application',
  's-app': 'Server Application',
  app: 'Application',
};

export function statusName(value: string | number | null): string {
  return value === null ? 'Unknown' : (STATUS[String(value)] ?? String(value));
}

export function protocolName(value: string | number | null): string {
  return value === null ? '' : (PROTOCOL[String(value)] ?? String(value));
}

export function observationPointName(value: string): string {
  return OBSERVATION_POINT[value] ?? value;
}

export const STATUS_NAMES = Object.values(STATUS);
export const PROTOCOL_NAMES = ['HTTP', 'MySQL', 'Redis', 'DNS'];

export type StatusTone = 'good' | 'warn' | 'bad' | 'plain';

/** How loud a status is shown: errors of the server and time-outs loudest. */
export function statusTone(value: string | number | null): StatusTone {
  switch (statusName(value)) {
    case 'Success':
      return 'good';
    case 'Client Error':
      return 'warn';
    case 'Server Error':
    case 'Timeout':
      return 'bad';
    default:
      return 'plain';
  }
}

export type SpanKind = 'S' | 'N' | 'A';

const KIND_TITLE: Record<SpanKind, string> = {
  S: 'System span (eBPF)',
  N: 'Network span (packets)',
  A: 'Application span (OpenTelemetry)',
};

/** S, N or A by the signal source; where it is missing, by the observation point. */
export function spanKind(signalSource: number | string | null | undefined, tapSide: string): SpanKind {
  switch (String(signalSource)) {
    case '3':
    case 'eBPF':
      return 'S';
    case '4':
    case 'OTel':
      return 'A';
    case '0':
    case 'Packet':
      return 'N';
  }
  if (tapSide === 'app' || tapSide.endsWith('-app')) return 'A';
  return tapSide.endsWith('-p') ? 'S' : 'N';
}

export function spanKindTitle(kind: SpanKind): string {
  return KIND_TITLE[kind];
}
