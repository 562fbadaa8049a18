/**
 * The form that takes a pasted token.
 *
 * In: why one is needed. Out: a token that has a token's form.
 * Guarantees: the token is in no attribute and no address; the field is emptied once it was taken.
 * Not here: whether the server accepts it (`connection`).
 */

import { tidyToken } from "../token";
import { byId, setText } from "./dom";

export class LoginView {
  private readonly root = byId("login");
  private readonly field = byId<HTMLTextAreaElement>("login-token");
  private readonly reason = byId("login-reason");

  constructor(onToken: (token: string) => void) {
    byId<HTMLFormElement>("login-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const token = tidyToken(this.field.value);
      if (token === null) {
        setText(this.reason, "This is not a token: it has three parts with dots between them.");
        this.field.focus();
        return;
      }
      this.field.value = "";
      this.root.hidden = true;
      onToken(token);
    });
    this.field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        byId<HTMLFormElement>("login-form").requestSubmit();
      }
    });
  }

  /** Shows the form; `reason` is empty when there simply is no token yet. */
  show(reason: string): void {
    setText(this.reason, reason);
    this.root.hidden = false;
    this.field.focus();
  }
}
