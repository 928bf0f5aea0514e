/** Where the reader is, which time they look at, and when the page asks again. */

import { bounds, DEFAULT_LAST, hashOf, parseRoute, parseTime, type Route, type TimeSpan } from './route';

const REFRESH_KEY = 'deepflow.refresh';

function remembered(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null; // Storage is switched off: choices last as long as the page.
  }
}

export function remember(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    // As above.
  }
}

/** A number kept from an earlier visit, else `otherwise`. */
export function rememberedNumber(key: string, otherwise: number): number {
  const text = remembered(key);
  const value = text === null ? Number.NaN : Number(text);
  return Number.isFinite(value) && value >= 0 ? value : otherwise;
}

export const REFRESH_CHOICES = [0, 5, 10, 30];

class View {
  route: Route = $state.raw({ page: 'map' });
  time: TimeSpan = $state.raw({ last: DEFAULT_LAST });
  /** Seconds between two questions to the server, 0 never. */
  refresh = $state(rememberedNumber(REFRESH_KEY, 10));
  /** Grows with every refresh; pages ask again when it does. */
  beat = $state(0);

  constructor() {
    this.#read();
    addEventListener('hashchange', () => this.#read());
    $effect.root(() => {
      $effect(() => {
        if (this.refresh === 0) return;
        const timer = setInterval(() => {
          if (!document.hidden) this.beat += 1;
        }, this.refresh * 1000);
        return () => clearInterval(timer);
      });
    });
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden && this.refresh > 0) this.beat += 1;
    });
  }

  #read(): void {
    this.route = parseRoute(location.hash);
    // A link without a time keeps the one in view.
    this.time = parseTime(location.hash) ?? ('last' in this.time ? { last: DEFAULT_LAST } : this.time);
  }

  /** Whole seconds asked for now. */
  bounds(): { from: number; to: number } {
    return bounds(this.time, Date.now() / 1000);
  }

  href(route: Route): string {
    return hashOf(route, this.time);
  }

  go(route: Route): void {
    location.hash = this.href(route);
  }

  /** As `go`, without a step in the history: for filters while they are typed. */
  replace(route: Route): void {
    history.replaceState(null, '', this.href(route));
    this.route = route;
  }

  setTime(time: TimeSpan): void {
    this.time = time;
    history.replaceState(null, '', hashOf(this.route, time));
  }

  setRefresh(seconds: number): void {
    this.refresh = seconds;
    remember(REFRESH_KEY, String(seconds));
  }
}

export const view = new View();

// A list that changes between the press and the release of a button takes the click from the row that was pressed.
const LONGEST_PRESS_MS = 1000;
let pressed = false;
addEventListener('pointerdown', () => (pressed = true), true);
for (const name of ['pointerup', 'pointercancel', 'blur'] as const) {
  addEventListener(name, () => void setTimeout(() => (pressed = false)), true);
}

async function released(): Promise<void> {
  const until = performance.now() + LONGEST_PRESS_MS;
  while (pressed && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** One question to the server: the last answer stays in view while the next is on its way, or when it fails. */
export class Answer<T> {
  data: T | undefined = $state.raw();
  error: string = $state('');
  loading = $state(false);
  #running: AbortController | undefined;

  async ask(question: (signal: AbortSignal) => Promise<T>): Promise<void> {
    this.#running?.abort();
    const running = new AbortController();
    this.#running = running;
    this.loading = true;
    try {
      const data = await question(running.signal);
      await released();
      if (running.signal.aborted) return;
      this.data = data;
      this.error = '';
    } catch (failure) {
      if (running.signal.aborted) return;
      this.error = failure instanceof Error ? failure.message : String(failure);
    }
    this.loading = false;
  }

  stop(): void {
    this.#running?.abort();
  }
}
