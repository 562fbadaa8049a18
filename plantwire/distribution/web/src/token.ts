/**
 * The access token of this browser tab.
 *
 * In: the address's fragment (`#token=…`), or the login form. Out: the token, kept for the tab only.
 * Guarantees: the token leaves the address bar and the history at once; it is never in a query string,
 * so no server log and no referrer carries it.
 * Not here: whether it is valid (the server says so).
 */

const STORAGE_KEY = "plantwire.token";
const TOKEN_FORM = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/;

/** The token in a fragment such as `#token=abc.def.ghi`, or null. */
export function tokenInFragment(fragment: string): string | null {
  return new URLSearchParams(fragment.replace(/^#/, "")).get("token");
}

/** A pasted token without what surrounds it, or null where it is none. */
export function tidyToken(pasted: string): string | null {
  const token = pasted.trim().replace(/^Bearer\s+/i, "");
  return TOKEN_FORM.test(token) ? token : null;
}

/** The token from the address, which is then cleaned, or from earlier in this tab. */
export function takeToken(): string | null {
  const fromAddress = tokenInFragment(location.hash);
  if (fromAddress !== null) {
    history.replaceState(null, "", location.pathname + location.search);
    keepToken(fromAddress);
    return fromAddress;
  }
  return sessionStorage.getItem(STORAGE_KEY);
}

/** The token of this tab, or null. */
export function currentToken(): string | null {
  return sessionStorage.getItem(STORAGE_KEY);
}

export function keepToken(token: string): void {
  sessionStorage.setItem(STORAGE_KEY, token);
}

export function forgetToken(): void {
  sessionStorage.removeItem(STORAGE_KEY);
}
