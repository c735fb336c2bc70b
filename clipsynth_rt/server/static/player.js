// Plays one sound at a time, and keeps the controls and the playhead in step with it.

const $ = (id) => document.getElementById(id);

export class Player {
  constructor() {
    this.audio = new Audio();
    this.audio.preload = "auto";
    $("play").addEventListener("click", () => this.toggle());
    $("loop").addEventListener("click", () => this.loop());
    $("position").addEventListener("input", (event) => this.seek(Number(event.target.value)));
    for (const name of ["play", "pause", "ended"]) this.audio.addEventListener(name, () => this.show());
    this.audio.addEventListener("seeked", () => this.place());
  }

  load(take) {
    this.audio.pause();
    this.seconds = take.seconds;
    this.audio.src = take.url;
    for (const id of ["play", "loop", "position"]) $(id).disabled = false;
    $("head").hidden = false;
    this.place(0);
  }

  get ready() {
    return this.seconds !== undefined;
  }

  play() {
    // refused where nobody has touched the page yet: the button remains
    return this.audio.play().catch(() => {});
  }

  toggle() {
    if (!this.ready) return;
    if (this.audio.paused) this.play();
    else this.audio.pause();
  }

  loop() {
    this.audio.loop = !this.audio.loop;
    $("loop").setAttribute("aria-pressed", String(this.audio.loop));
  }

  seek(share) {
    this.audio.currentTime = share * this.seconds;
    this.place(share * this.seconds);
  }

  place(seconds = this.audio.currentTime) {
    const share = Math.min(1, seconds / this.seconds);
    $("head").style.left = `${100 * share}%`;
    $("position").value = String(share);
    $("position").setAttribute("aria-valuetext", `${seconds.toFixed(1)} of ${this.seconds.toFixed(1)} seconds`);
    $("time").textContent = `${seconds.toFixed(2)} / ${this.seconds.toFixed(2)} s`;
  }

  show() {
    const playing = !this.audio.paused && !this.audio.ended;
    $("play").classList.toggle("playing", playing);
    $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
    cancelAnimationFrame(this.frame);
    const follow = () => {
      this.place();
      if (!this.audio.paused) this.frame = requestAnimationFrame(follow);
    };
    follow();
  }
}
