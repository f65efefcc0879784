//! The curves of gpg that the OpenPGP library's backend lacks: brainpool and secp256k1, as far as the key agreement of
//! RFC 6637 needs them. Timing does not matter, because no attacker can request decryptions at will.

use num_bigint_dig::BigUint;
use sequoia_openpgp::types::Curve;
use zeroize::{Zeroize, Zeroizing};

/// A curve y² = x³ + ax + b over a prime field. Its group has prime order, so every point of it is a good one.
#[derive(Debug)]
pub(super) struct WeierstrassCurve {
    p: BigUint,
    a: BigUint,
    b: BigUint,
    /// Length of a coordinate in bytes.
    len: usize,
}

/// A point in Jacobian coordinates: (x/z², y/z³). z is 0 at infinity.
struct JacobianPoint {
    x: BigUint,
    y: BigUint,
    z: BigUint,
}

impl Drop for JacobianPoint {
    fn drop(&mut self) {
        [&mut self.x, &mut self.y, &mut self.z].into_iter().for_each(Zeroize::zeroize);
    }
}

/// RFC 5639 section 3.4: p, a, b.
const BRAINPOOL_P256: [&str; 3] = [
    "a9fb57dba1eea9bc3e660a909d838d726e3bf623d52620282013481d1f6e5377",
    "7d5a0975fc2c3057eef67530417affe7fb8055c126dc5c6ce94a4b44f330b5d9",
    "26dc5c6ce94a4b44f330b5d9bbd77cbf958416295cf7e1ce6bccdc18ff8c07b6",
];
/// RFC 5639 section 3.6.
const BRAINPOOL_P384: [&str; 3] = [
    "8cb91e82a3386d280f5d6f7e50e641df152f7109ed5456b412b1da197fb71123acd3a729901d1a71874700133107ec53",
    "7bc382c63d8c150c3c72080ace05afa0c2bea28e4fb22787139165efba91f90f8aa5814a503ad4eb04a8c7dd22ce2826",
    "04a8c7dd22ce28268b39b55416f0447c2fb77de107dcd2a62e880ea53eeb62d57cb4390295dbc9943ab78696fa504c11",
];
/// RFC 5639 section 3.7.
const BRAINPOOL_P512: [&str; 3] = [
    "aadd9db8dbe9c48b3fd4e6ae33c9fc07cb308db3b3c9d20ed6639cca703308717d4d9b009bc66842aecda12ae6a380e62881ff2f2d82c685\
     28aa6056583a48f3",
    "7830a3318b603b89e2327145ac234cc594cbdd8d3df91610a83441caea9863bc2ded5d5aa8253aa10a2ef1c98b9ac8b57f1117a72bf2c7b9\
     e7c1ac4d77fc94ca",
    "3df91610a83441caea9863bc2ded5d5aa8253aa10a2ef1c98b9ac8b57f1117a72bf2c7b9e7c1ac4d77fc94cadc083e67984050b75ebae5dd\
     2809bd638016f723",
];
/// SEC 2 section 2.4.1.
const SECP256K1: [&str; 3] = ["fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f", "00", "07"];
/// The object identifier of secp256k1, which the library does not name.
const SECP256K1_OID: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x0a];

impl WeierstrassCurve {
    /// Returns the curve, if it is one of these.
    pub(super) fn of(curve: &Curve) -> Option<Self> {
        let [p, a, b] = match curve {
            Curve::BrainpoolP256 => BRAINPOOL_P256,
            Curve::BrainpoolP384 => BRAINPOOL_P384,
            Curve::BrainpoolP512 => BRAINPOOL_P512,
            other if other.oid() == SECP256K1_OID => SECP256K1,
            _ => return None,
        };
        let len = p.len() / 2;
        let number = |hex: &str| BigUint::parse_bytes(hex.as_bytes(), 16);
        Some(Self { p: number(p)?, a: number(a)?, b: number(b)?, len })
    }

    /// Returns the x coordinate of the product of `scalar` and the encoded `point`, with leading zeros. Returns `None` if
    /// `point` is not on the curve: then the product would leak a part of the secret.
    pub(super) fn shared_secret(&self, point: &[u8], scalar: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (x, y) = point.strip_prefix(&[4])?.split_at_checked(self.len)?;
        if y.len() != self.len {
            return None;
        }
        let [x, y] = [x, y].map(BigUint::from_bytes_be);
        let right = (&x * &x * &x + &self.a * &x + &self.b) % &self.p;
        if x >= self.p || y >= self.p || &y * &y % &self.p != right {
            return None;
        }
        let (zero, one) = (BigUint::from(0_u8), BigUint::from(1_u8));
        let mut product = JacobianPoint { x: zero.clone(), y: one, z: zero.clone() };
        for bit in scalar.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)) {
            product = self.double(&product);
            if bit == 1 {
                product = self.add(&product, &x, &y);
            }
        }
        if product.z == zero {
            return None;
        }
        // z^(p-2) is the inverse of z.
        let mut inverse = product.z.modpow(&(&self.p - 2_u8), &self.p);
        let mut shared = &product.x * &inverse % &self.p * &inverse % &self.p;
        let bytes = Zeroizing::new(shared.to_bytes_be());
        [&mut inverse, &mut shared].into_iter().for_each(Zeroize::zeroize);
        let mut padded = Zeroizing::new(vec![0; self.len.checked_sub(bytes.len())?]);
        padded.extend_from_slice(&bytes);
        Some(padded)
    }

    fn double(&self, point: &JacobianPoint) -> JacobianPoint {
        let JacobianPoint { x, y, z } = point;
        let y_squared = self.product(y, y);
        let s = self.product(&(x * 4_u8), &y_squared);
        let z_squared = self.product(z, z);
        let slope = (x * x * 3_u8 + &self.a * self.product(&z_squared, &z_squared)) % &self.p;
        let new_x = self.difference(&(&slope * &slope), &(&s * 2_u8));
        let new_y = self.product(&slope, &self.difference(&s, &new_x));
        let new_y = self.difference(&new_y, &(self.product(&y_squared, &y_squared) * 8_u8));
        JacobianPoint { x: new_x, y: new_y, z: self.product(&(y * 2_u8), z) }
    }

    /// Adds the point (`x`, `y`), which is not infinity.
    fn add(&self, point: &JacobianPoint, x: &BigUint, y: &BigUint) -> JacobianPoint {
        let (zero, one) = (BigUint::from(0_u8), BigUint::from(1_u8));
        if point.z == zero {
            return JacobianPoint { x: x.clone(), y: y.clone(), z: one };
        }
        let z_squared = self.product(&point.z, &point.z);
        let z_cubed = self.product(&z_squared, &point.z);
        let run = self.difference(&self.product(x, &z_squared), &point.x);
        let rise = self.difference(&self.product(y, &z_cubed), &point.y);
        if run == zero {
            return if rise == zero { self.double(point) } else { JacobianPoint { x: one.clone(), y: one, z: zero } };
        }
        let run_squared = self.product(&run, &run);
        let run_cubed = self.product(&run_squared, &run);
        let middle = self.product(&point.x, &run_squared);
        let new_x = self.difference(&(&rise * &rise), &(&run_cubed + &middle * 2_u8));
        let new_y = self.product(&rise, &self.difference(&middle, &new_x));
        let new_y = self.difference(&new_y, &self.product(&point.y, &run_cubed));
        JacobianPoint { x: new_x, y: new_y, z: self.product(&run, &point.z) }
    }

    fn product(&self, a: &BigUint, b: &BigUint) -> BigUint {
        a * b % &self.p
    }

    /// Returns `a` - `b` in the field.
    fn difference(&self, a: &BigUint, b: &BigUint) -> BigUint {
        (a % &self.p + &self.p - b % &self.p) % &self.p
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// Generator, order.
    fn curves() -> [(Curve, &'static str, &'static str); 4] {
        [
            (
                Curve::BrainpoolP256,
                "048bd2aeb9cb7e57cb2c4b482ffc81b7afb9de27e1e3bd23c23a4453bd9ace3262547ef835c3dac4fd97f8461a14611dc9c277451\
                 32ded8e545c1d54c72f046997",
                "a9fb57dba1eea9bc3e660a909d838d718c397aa3b561a6f7901e0e82974856a7",
            ),
            (
                Curve::BrainpoolP384,
                "041d1c64f068cf45ffa2a63a81b7c13f6b8847a3e77ef14fe3db7fcafe0cbd10e8e826e03436d646aaef87b2e247d4af1e8abe1d7\
                 520f9c2a45cb1eb8e95cfd55262b70b29feec5864e19c054ff99129280e4646217791811142820341263c5315",
                "8cb91e82a3386d280f5d6f7e50e641df152f7109ed5456b31f166e6cac0425a7cf3ab6af6b7fc3103b883202e9046565",
            ),
            (
                Curve::BrainpoolP512,
                "0481aee4bdd82ed9645a21322e9c4c6a9385ed9f70b5d916c1b43b62eef4d0098eff3b1f78e2d0d48d50d1687b93b97d5f7c6d504\
                 7406a5e688b352209bcb9f8227dde385d566332ecc0eabfa9cf7822fdf209f70024a57b1aa000c55b881f8111b2dcde494a5f485e\
                 5bca4bd88a2763aed1ca2b2fa8f0540678cd1e0f3ad80892",
                "aadd9db8dbe9c48b3fd4e6ae33c9fc07cb308db3b3c9d20ed6639cca70330870553e5c414ca92619418661197fac10471db1d3810\
                 85ddaddb58796829ca90069",
            ),
            (
                Curve::Unknown(SECP256K1_OID.into()),
                "0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798483ada7726a3c4655da4fbfc0e1108a8fd17b44\
                 8a68554199c47d08ffb10d4b8",
                "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
            ),
        ]
    }

    /// The order brings each generator back to itself, which no wrong parameter or formula does.
    #[test]
    fn the_order_of_the_group_is_that_of_the_standard() {
        for (curve, generator, order) in curves() {
            let (weierstrass, generator) = (WeierstrassCurve::of(&curve).unwrap(), bytes(generator));
            let x = &generator[1..=weierstrass.len];
            let order = BigUint::from_bytes_be(&bytes(order));
            let times = |scalar: BigUint| weierstrass.shared_secret(&generator, &scalar.to_bytes_be());
            assert_eq!(times(&order + 1_u8).unwrap().as_slice(), x, "{curve:?}");
            assert_eq!(times(&order - 1_u8).unwrap().as_slice(), x, "{curve:?}");
            assert_eq!(times(order), None, "{curve:?}: infinity has no coordinates");
        }
    }

    #[test]
    fn a_point_that_is_not_on_the_curve_is_refused() {
        for (curve, generator, _) in curves() {
            let (weierstrass, generator) = (WeierstrassCurve::of(&curve).unwrap(), bytes(generator));
            assert!(weierstrass.shared_secret(&generator, &[5]).is_some());
            for at in [0, 1, generator.len() - 1] {
                let mut other = generator.clone();
                other[at] ^= 1;
                assert_eq!(weierstrass.shared_secret(&other, &[5]), None, "{curve:?}: byte {at}");
            }
            let cut = &generator[..generator.len() - 1];
            assert_eq!(weierstrass.shared_secret(cut, &[5]), None);
            // The same point with a coordinate that is not reduced.
            let x = BigUint::from_bytes_be(&generator[1..=weierstrass.len]) + &weierstrass.p;
            let longer = [&[4][..], &x.to_bytes_be(), &generator[1 + weierstrass.len..]].concat();
            assert_eq!(weierstrass.shared_secret(&longer, &[5]), None);
        }
        assert!(WeierstrassCurve::of(&Curve::NistP256).is_none());
    }
}
