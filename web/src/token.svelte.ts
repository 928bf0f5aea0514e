/** The server's bearer token: asked for once when the server wants one, kept until the tab is closed. */

const KEY = 'deepflow.token';

class Token {
  /** The server wants a token: the page shows a form instead of data. */
  wanted = $state(false);
  /** The server refused the token it was given. */
  refused = $state(false);
  #value: string;

  constructor() {
    try {
      this.#value = sessionStorage.getItem(KEY) ?? '';
    } catch {
      this.#value = ''; // Storage is switched off: the token lasts as long as the page.
    }
  }

  headers(): Record<string, string> {
    return this.#value === '' ? {} : { Authorization: `Bearer ${this.#value}` };
  }

  /** After an answer 401 to a request that went out with these headers. */
  ask(sent: Record<string, string>): void {
    // An answer to a question from before the token was given says nothing about it.
    if (sent.Authorization !== this.headers().Authorization) return;
    this.refused = this.#value !== '';
    this.wanted = true;
  }

  give(value: string): void {
    this.#value = value;
    this.wanted = this.refused = false;
    try {
      sessionStorage.setItem(KEY, value);
    } catch {
      // As above.
    }
  }
}

export const token = new Token();
