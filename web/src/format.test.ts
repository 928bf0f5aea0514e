import { describe, expect, test } from 'vitest';
import { ago, bytes, clock, count, duration, parseDuration, rate, ratioFraction, share } from './format';

describe('duration', () => {
  test.each([
    [0, '0 µs'],
    [7, '7 µs'],
    [999, '999 µs'],
    [999.6, '1 ms'],
    [1500, '1.5 ms'],
    [12_340, '12.3 ms'],
    [999_499, '999 ms'],
    [999_600, '1 s'],
    [61_000_000, '1 min 1 s'],
    [7_260_000_000, '2 h 1 min'],
  ])('%d µs is %s', (us, text) => expect(duration(us)).toBe(text));
  test('nothing measured is a dash', () => {
    expect(duration(null)).toBe('–');
    expect(duration(undefined)).toBe('–');
  });
});

test('rates below one in ten seconds go by the minute', () => {
  expect(rate(0)).toBe('0/s');
  expect(rate(0.05)).toBe('3/min');
  expect(rate(0.25)).toBe('0.25/s');
  expect(rate(3400)).toBe('3.4k/s');
  expect(rate(0.00001)).toBe('<0.01/min');
});

test('counts keep three digits', () => {
  expect(count(12)).toBe('12');
  expect(count(999.6)).toBe('1k');
  expect(count(12_345)).toBe('12.3k');
  expect(count(2_500_000)).toBe('2.5M');
});

test('bytes go by the thousand', () => {
  expect(bytes(0)).toBe('0 B');
  expect(bytes(999)).toBe('999 B');
  expect(bytes(999.9)).toBe('1 kB');
  expect(bytes(12_345_678)).toBe('12.3 MB');
  expect(bytes(2e12)).toBe('2000 GB');
});

test('a share that is not zero never reads as zero', () => {
  expect(share(0)).toBe('0 %');
  expect(share(0.05)).toBe('5 %');
  expect(share(0.00005)).toBe('<0.01 %');
  expect(share(1)).toBe('100 %');
});

test('clock shows local time to the millisecond', () => {
  const us = new Date(2026, 10, 21, 4, 3, 7, 25).getTime() * 1000;
  expect(clock(us)).toBe('04:03:07.025');
  expect(clock(us, true)).toBe('2026-11-21 04:03:07.025');
});

test('ago', () => {
  expect(ago(100, 101)).toBe('just now');
  expect(ago(100, 142)).toBe('42 s ago');
  expect(ago(100, 300)).toBe('3 min ago');
  expect(ago(null, 300)).toBe('never');
});

describe('parseDuration', () => {
  test.each([
    ['100', 100_000],
    ['100 ms', 100_000],
    ['1.5ms', 1500],
    ['2s', 2_000_000],
    ['300us', 300],
    ['300 µs', 300],
    ['0,5 s', 500_000],
  ])('%s', (text, us) => expect(parseDuration(text)).toBe(us));
  test('empty is no bound, words are no duration', () => {
    expect(parseDuration('  ')).toBeUndefined();
    expect(parseDuration('soon')).toBeNaN();
    expect(parseDuration('-5')).toBeNaN();
  });
});

test('ratio in all its spellings', () => {
  expect(ratioFraction('12.50%')).toBe(0.125);
  expect(ratioFraction('12.50')).toBe(0.125);
  expect(ratioFraction(12.5)).toBe(0.125);
  expect(ratioFraction('')).toBe(0);
});
