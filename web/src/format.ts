/** Numbers for people. Every function takes the unit its name says and never shows more than three significant digits. */

function significant(value: number): string {
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1).replace(/\.0$/, '');
  return value.toFixed(2).replace(/\.?0+$/, '');
}

/** Microseconds → "12.3 ms"; null (nothing measured) → "–". */
export function duration(us: number | null | undefined): string {
  if (us === null || us === undefined || !Number.isFinite(us)) return '–';
  const size = Math.abs(us);
  if (size < 999.5) return `${significant(us)} µs`;
  if (size < 999_500) return `${significant(us / 1e3)} ms`;
  if (size < 59_950_000) return `${significant(us / 1e6)} s`;
  const seconds = Math.round(size / 1e6);
  const sign = us < 0 ? '-' : '';
  if (seconds < 3600) return `${sign}${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${sign}${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** Events a second → "1.25/s", "3.4k/s"; below one in ten seconds by the minute. */
export function rate(perSecond: number): string {
  if (!Number.isFinite(perSecond)) return '–';
  if (perSecond > 0 && perSecond < 0.1) {
    const perMinute = perSecond * 60;
    return perMinute < 0.01 ? '<0.01/min' : `${significant(perMinute)}/min`;
  }
  return `${count(perSecond)}/s`;
}

/** 1234 → "1.23k". */
export function count(value: number): string {
  const size = Math.abs(value);
  if (size >= 999_500_000) return `${significant(value / 1e9)}G`;
  if (size >= 999_500) return `${significant(value / 1e6)}M`;
  if (size >= 999.5) return `${significant(value / 1e3)}k`;
  return significant(value);
}

/** Bytes → "1.23 kB", by the thousand as rates of networks are. */
export function bytes(value: number): string {
  if (!Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  for (const [unit, scale] of [
    ['GB', 1e9],
    ['MB', 1e6],
    ['kB', 1e3],
  ] as const) {
    if (size >= scale * 0.9995) return `${significant(value / scale)} ${unit}`;
  }
  return `${significant(value)} B`;
}

/** A fraction 0…1 → "5 %"; a share that is not zero never reads as "0 %". */
export function share(fraction: number): string {
  if (!Number.isFinite(fraction)) return '–';
  const percent = fraction * 100;
  if (percent > 0 && percent < 0.01) return '<0.01 %';
  return `${significant(percent)} %`;
}

const two = (value: number): string => String(value).padStart(2, '0');

/** Microseconds since the epoch → local "14:03:07.125"; with `day` "2026-11-21 14:03:07.125". */
export function clock(us: number, day = false): string {
  const time = new Date(us / 1000);
  const text = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${String(
    time.getMilliseconds(),
  ).padStart(3, '0')}`;
  if (!day) return text;
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${text}`;
}

/** Seconds between then and now in words: "just now", "42 s ago", "3 min ago", "2 h ago". */
export function ago(thenS: number | null, nowS: number): string {
  if (thenS === null) return 'never';
  const passed = Math.max(0, Math.round(nowS - thenS));
  if (passed < 3) return 'just now';
  if (passed < 60) return `${passed} s ago`;
  if (passed < 3600) return `${Math.floor(passed / 60)} min ago`;
  if (passed < 86_400) return `${Math.floor(passed / 3600)} h ago`;
  return `${Math.floor(passed / 86_400)} days ago`;
}

/** "12.5 ms", "300us", "2s", "40" (ms) → microseconds; undefined for an empty text, NaN for one that is no duration. */
export function parseDuration(text: string): number | undefined {
  const trimmed = text.trim();
  if (trimmed === '') return undefined;
  const match = /^(\d+(?:[.,]\d+)?)\s*(us|µs|ms|s|)$/i.exec(trimmed);
  if (!match) return Number.NaN;
  const factor = { us: 1, µs: 1, ms: 1e3, s: 1e6, '': 1e3 }[(match[2] ?? '').toLowerCase()] ?? Number.NaN;
  return Math.round(Number((match[1] ?? '').replace(',', '.')) * factor);
}

/** "12.50%", "12.50" or 12.5 → 0.125. */
export function ratioFraction(value: string | number): number {
  const percent = typeof value === 'number' ? value : Number.parseFloat(value);
  return Number.isFinite(percent) ? percent / 100 : 0;
}
