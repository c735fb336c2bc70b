#!/usr/bin/env bash
# Fetch and unpack every source of the open corpus, without root:
#
#   bash training/clipsynth_training/data/fetch_sources.sh DIR
#   clipsynth-rt data openav CORPUS --source-dir DIR
#
# Sound and openclipart come from Debian packages (DIR/usr/share/...), icons and emoji from npm
# packages (DIR/npm/<package>/package/...). Needs apt-get, dpkg, npm and about 1 GB in DIR.
# A package that is already unpacked is not fetched again.
set -euo pipefail

if [ $# -ne 1 ]; then
  echo "usage: $0 DIR" >&2
  exit 2
fi
mkdir -p "$1"
root=$(cd "$1" && pwd)

for tool in apt-get dpkg npm tar; do
  command -v "$tool" >/dev/null || { echo "$0: $tool is not installed" >&2; exit 1; }
done

# libfluidsynth3 renders the sound fonts; it is needed where the system has none.
debian=(
  fluid-soundfont-gm fluid-soundfont-gs musescore-general-soundfont sonic-pi-samples
  openclipart-png libfluidsynth3
)
# The same packages as PICTURE_SETS and KEYWORD_PACKAGES in training/clipsynth_training/data/pictures/sets.py.
npm=(
  @iconify-json/noto @iconify-json/noto-v1 @iconify-json/twemoji @iconify-json/emojione
  @iconify-json/fxemoji @iconify-json/fluent-emoji-flat @iconify-json/fluent-emoji-high-contrast
  @lobehub/fluent-emoji-3d @iconify-json/streamline-emojis
  @iconify-json/streamline-ultimate-color @iconify-json/streamline-freehand-color
  @iconify-json/streamline-plump-color @iconify-json/streamline-color
  @iconify-json/streamline-kameleon-color @iconify-json/flat-color-icons
  @iconify-json/icon-park @iconify-json/meteocons @iconify-json/game-icons @iconify-json/mdi
  @iconify-json/ph @iconify-json/tabler @iconify-json/lucide @iconify-json/lucide-lab
  @iconify-json/fa6-solid @iconify-json/mingcute @iconify-json/healthicons @iconify-json/maki
  @iconify-json/temaki emojilib unicode-emoji-json
)

total=$((${#debian[@]} + ${#npm[@]}))
number=0
fetched=0
# Say which package comes next, and after the first how long the rest takes at this pace.
tell() {
  local left=""
  if [ "$fetched" -gt 0 ]; then
    left=", about $((SECONDS * (total - number + 1) / fetched)) s left"
  fi
  echo "[$number/$total] $1$left"
  fetched=$((fetched + 1))
}

echo "fetching what is missing of $total packages into $root"
work=$(mktemp -d "$root/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

for package in "${debian[@]}"; do
  number=$((number + 1))
  done_mark="$root/usr/share/doc/$package/copyright"
  [ -e "$done_mark" ] && continue
  tell "apt-get download $package"
  # apt drops to the user _apt, who may not write here: that is a warning, not a failure.
  (cd "$work" && apt-get download -q "$package")
  dpkg -x "$work/$package"_*.deb "$root"
  rm -f "$work/$package"_*.deb
done

for package in "${npm[@]}"; do
  number=$((number + 1))
  target="$root/npm/$package"
  [ -d "$target/package" ] && continue
  tell "npm pack $package"
  mkdir "$work/unpacked"
  tarball=$(cd "$work" && npm pack --silent "$package" | tail -n 1)
  tar -xzf "$work/$tarball" -C "$work/unpacked"
  mkdir -p "$target"
  mv "$work/unpacked/package" "$target/package"
  rm -rf "$work/unpacked" "${work:?}/$tarball"
done
echo "$root is ready for: clipsynth-rt data openav CORPUS --source-dir $root"
