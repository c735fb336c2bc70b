// Plays one sound at a time, and keeps the controls and the playhead in step with it.
// Through the Web Audio API: an audio element leaves a gap where a repeated sound begins anew.

const $ = (id) => document.getElementById(id);

export class Player {
  constructor() {
    this.repeating = false;
    this.offset = 0; // seconds into the sound while it does not play
    $("play").addEventListener("click", () => this.toggle());
    $("repeat").addEventListener("click", () => this.repeat());
    $("position").addEventListener("input", (event) => this.seek(Number(event.target.value)));
  }

  get ready() {
    return this.buffer !== undefined;
  }

  get playing() {
    return this.source !== undefined;
  }

  /** Seconds into the sound. */
  get position() {
    if (!this.playing) return this.offset;
    const passed = this.context.currentTime - this.began;
    return this.repeating ? passed % this.buffer.duration : Math.min(passed, this.buffer.duration);
  }

  load(buffer) {
    this.stop();
    this.buffer = buffer;
    this.offset = 0;
    for (const id of ["play", "repeat", "position"]) $(id).disabled = false;
    $("head").hidden = false;
    this.show();
  }

  async play() {
    this.stop();
    const buffer = this.buffer;
    this.context ??= new AudioContext();
    // stays suspended where nobody has touched the page yet: the button remains
    if (this.context.state === "suspended") await this.context.resume();
    if (buffer !== this.buffer || this.playing) return;
    if (this.offset >= buffer.duration - 0.01) this.offset = 0;
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.loop = this.repeating;
    source.connect(this.context.destination);
    source.onended = () => {
      if (source !== this.source) return;
      this.source = undefined;
      this.offset = buffer.duration;
      this.show();
    };
    source.start(0, this.offset);
    this.began = this.context.currentTime - this.offset;
    this.source = source;
    this.show();
  }

  stop() {
    this.offset = this.position;
    const source = this.source;
    this.source = undefined;
    source?.stop();
    this.show();
  }

  toggle() {
    if (!this.ready) return;
    if (this.playing) this.stop();
    else this.play();
  }

  repeat(on = !this.repeating) {
    // what has been played twice counts once
    const position = this.position;
    this.repeating = on;
    if (this.playing) {
      this.source.loop = on;
      this.began = this.context.currentTime - position;
    }
    $("repeat").setAttribute("aria-pressed", String(on));
  }

  seek(share) {
    const playing = this.playing;
    this.stop();
    this.offset = share * this.buffer.duration;
    if (playing) this.play();
    else this.show();
  }

  /** Bring the controls in step, and go on while it plays. */
  show() {
    $("play").classList.toggle("playing", this.playing);
    $("play").setAttribute("aria-label", this.playing ? "Pause" : "Play");
    cancelAnimationFrame(this.frame);
    const follow = () => {
      this.place();
      if (this.playing) this.frame = requestAnimationFrame(follow);
    };
    if (this.ready) follow();
  }

  place() {
    const [seconds, all] = [this.position, this.buffer.duration];
    $("head").style.left = `${(100 * seconds) / all}%`;
    $("position").value = String(seconds / all);
    $("position").setAttribute("aria-valuetext", `${seconds.toFixed(1)} of ${all.toFixed(1)} seconds`);
    $("time").textContent = `${seconds.toFixed(2)} / ${all.toFixed(2)} s`;
  }
}
