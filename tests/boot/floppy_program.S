/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A boot sector that uses a floppy disk as DOS does, by the BIOS alone: INT 10h writes on the screen,
 * INT 13h reads all of a 1440K disk track by track and writes a sector, INT 16h takes a key. Run by
 * tests/boot/systems.py.
 *
 * It says "sum " and the sum of all words of the disk in hex, waits for a key, puts it into every
 * byte of the disk's last sector, and says "written".
 */
    .code16
    .text
    .globl _start
    .set TRACK_BYTES, 18 * 512
    .set LAST_CYLINDER, 79
_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    sti
    cld
    mov %dl, drive

    xor %bp, %bp /* the sum */
    xor %cx, %cx /* CH: the cylinder */
    mov drive, %dl
    mov $0, %dh /* the head */
next_track:
    mov $0x0212, %ax /* read 18 sectors */
    mov $track, %bx
    mov $1, %cl
    call disk
    mov $track, %si
    push %cx
    mov $TRACK_BYTES / 2, %cx
add_word:
    lodsw
    add %ax, %bp
    loop add_word
    pop %cx
    xor $1, %dh
    jnz next_track
    inc %ch
    cmp $LAST_CYLINDER, %ch
    jbe next_track

    mov $sum_text, %si
    call print
    mov $4, %cx
next_digit:
    rol $4, %bp
    mov %bp, %ax
    and $0xf, %al
    cmp $10, %al
    jb digit
    add $'a' - 10 - '0', %al
digit:
    add $'0', %al
    call put
    loop next_digit
    mov $key_text, %si
    call print

    mov $0, %ah
    int $0x16
    call put
    mov $track, %di
    mov $512, %cx
    rep stosb
    mov $0x0301, %ax /* write one sector */
    mov $track, %bx
    mov $LAST_CYLINDER << 8 | 18, %cx
    mov drive, %dl
    mov $1, %dh
    call disk
    mov $written_text, %si
    call print
stop:
    hlt
    jmp stop

/* INT 13h with three attempts, as is usual: a drive may need time. */
disk:
    mov $3, %di
again:
    push %ax
    int $0x13
    jnc done
    mov $0, %ah /* reset */
    int $0x13
    pop %ax
    dec %di
    jnz again
    mov $failed_text, %si
    call print
    jmp stop
done:
    add $2, %sp
    ret

print:
    lodsb
    test %al, %al
    jz printed
    call put
    jmp print
printed:
    ret

put:
    push %bp /* old BIOSes lose it */
    mov $0x0e, %ah
    mov $7, %bx
    int $0x10
    pop %bp
    ret

sum_text:
    .asciz "sum "
key_text:
    .asciz "\r\nkey "
written_text:
    .asciz "\r\nwritten"
failed_text:
    .asciz "\r\nthe disk failed"
    .org 510
    .word 0xaa55

    .set drive, 0x600
    .set track, 0x10000 - TRACK_BYTES /* crosses no 64 KiB, which the DMA controller cannot */
